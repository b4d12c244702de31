//! What stands between this process and kernel tracing, in words, with what would mend it.
//!
//! The kernel only says "not permitted". What can be seen of the reasons is looked at in the order in which
//! the kernel asks: capabilities, whether they count outside of a user namespace, lockdown, the sysctls,
//! filters of system calls. Nothing here decides anything: it explains a refusal that happened.

use std::fs::read_to_string;

const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// What can be seen of the reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Effective capabilities, a bit for each.
    pub capabilities: u64,
    /// Of this process's user namespace: `/proc/self/uid_map`.
    pub uid_map: String,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: String,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i32>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i32>,
    /// A filter of system calls is there.
    pub seccomp: bool,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// bpf(2).
    Bpf,
    /// perf_event_open(2).
    Perf,
}

impl Facts {
    /// Of this process on this kernel.
    pub fn of_this_process() -> Facts {
        let read = |path: &str| read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let sysctl = |name: &str| read(&format!("/proc/sys/kernel/{name}")).trim().parse().ok();
        Facts {
            capabilities: value("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0),
            uid_map: read("/proc/self/uid_map"),
            lockdown: read("/sys/kernel/security/lockdown"),
            unprivileged_bpf_disabled: sysctl("unprivileged_bpf_disabled"),
            perf_event_paranoid: sysctl("perf_event_paranoid"),
            seccomp: value("Seccomp:").is_some_and(|mode| mode != "0"),
        }
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 != 0 || self.capabilities >> SYS_ADMIN & 1 != 0
    }

    /// Capabilities that are missing for a call, by name.
    fn missing(&self, refused: Refused) -> Vec<&'static str> {
        let needed: &[(u32, &str)] = match refused {
            Refused::Bpf => &[(BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")],
            Refused::Perf => &[(PERFMON, "CAP_PERFMON")],
        };
        needed.iter().filter(|(capability, _)| !self.has(*capability)).map(|(_, name)| *name).collect()
    }

    /// True if the capabilities are those of a user namespace, which do not count for the kernel as a whole.
    fn is_in_a_namespace(&self) -> bool {
        const WHOLE: [&str; 3] = ["0", "0", "4294967295"];
        let words: Vec<&str> = self.uid_map.split_whitespace().collect();
        !words.is_empty() && words != WHOLE
    }

    /// Why a call was refused, and what would mend it.
    pub fn explain(&self, refused: Refused) -> String {
        let missing = self.missing(refused);
        if !missing.is_empty() {
            let setting = match (refused, self.unprivileged_bpf_disabled, self.perf_event_paranoid) {
                (Refused::Bpf, Some(disabled), _) if disabled != 0 => {
                    format!(
                        "; without them kernel.unprivileged_bpf_disabled={disabled} forbids eBPF altogether"
                    )
                }
                (Refused::Perf, _, Some(paranoid)) if paranoid > -1 => format!(
                    "; without it kernel.perf_event_paranoid={paranoid} forbids it (sysctl \
                     kernel.perf_event_paranoid=-1 lets everybody)"
                ),
                _ => String::new(),
            };
            return format!(
                "{} missing (setcap cap_bpf,cap_perfmon+ep on the daemon's file, or run it as root){setting}",
                missing.join(" and ")
            );
        }
        if self.is_in_a_namespace() {
            return "the daemon is in a user namespace (a rootless container), whose capabilities do not count \
                    for the kernel (start `sillage daemon` outside, as root of the machine, or the container \
                    with --privileged and --userns=host)"
                .into();
        }
        if self.lockdown.contains("[confidentiality]") {
            return "the kernel is locked down (/sys/kernel/security/lockdown says confidentiality; boot with \
                    lockdown=integrity on its command line, which permits tracing)"
                .into();
        }
        if self.seccomp {
            return "a filter of system calls (seccomp) forbids it (of a container: docker run --security-opt \
                    seccomp=unconfined; of a service: SystemCallFilter=@default bpf perf_event_open)"
                .into();
        }
        "the kernel's configuration or a security module forbids it (journalctl -k may say which)".into()
    }
}

/// Why this process may not use eBPF, as far as it can be seen.
pub fn missing_rights() -> String {
    Facts::of_this_process().explain(Refused::Bpf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    fn root() -> Facts {
        let capabilities = 1 << BPF | 1 << PERFMON;
        Facts { capabilities, uid_map: WHOLE.into(), ..Facts::default() }
    }

    #[track_caller]
    fn says(facts: &Facts, refused: Refused, parts: &[&str]) {
        let text = facts.explain(refused);
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }

    #[test]
    fn each_reason_is_named_with_what_mends_it() {
        use Refused::{Bpf, Perf};
        let none = Facts { capabilities: 0, unprivileged_bpf_disabled: Some(2), ..root() };
        says(&none, Bpf, &["CAP_BPF and CAP_PERFMON missing", "setcap", "unprivileged_bpf_disabled=2"]);
        let half = Facts { capabilities: 1 << BPF, ..root() };
        says(&half, Bpf, &["CAP_PERFMON missing"]);
        assert!(!half.explain(Bpf).contains("CAP_BPF"));
        let paranoid = Facts { capabilities: 1 << BPF, perf_event_paranoid: Some(3), ..root() };
        says(
            &paranoid,
            Perf,
            &["CAP_PERFMON missing", "perf_event_paranoid=3", "sysctl kernel.perf_event_paranoid=-1"],
        );
        let guest = Facts { uid_map: "0 1000 1\n".into(), capabilities: 1 << SYS_ADMIN, ..root() };
        says(&guest, Bpf, &["user namespace", "--userns=host"]);
        let locked = Facts { lockdown: "none integrity [confidentiality]\n".into(), ..root() };
        says(&locked, Bpf, &["locked down", "lockdown=integrity"]);
        let open = Facts { lockdown: "none [integrity] confidentiality\n".into(), seccomp: true, ..root() };
        says(&open, Bpf, &["seccomp=unconfined"]);
        says(&root(), Perf, &["security module"]);
    }

    #[test]
    fn this_process_has_facts() {
        let facts = Facts::of_this_process();
        assert!(!facts.uid_map.is_empty(), "{facts:?}");
        assert!(!facts.explain(Refused::Bpf).is_empty());
    }
}
