//! Probes: events at places in code that no tracepoint marks. In programs' code by symbol or SDT probe, in
//! the kernel's own by symbol or address; entry and return of functions in both.
//!
//! A [`Probe`] is what a rule asks for, in words; [`Probe::events`] finds the places, now, in the file that
//! has the name now. Records have LTTng's fields (`ip`; of functions also `parent_ip`), and beyond it an SDT
//! probe's arguments and what a function returns. Nothing is ever written to a file: the kernel puts the
//! breakpoint into memory, and takes it out again with the descriptor.

mod elf;
mod operand;

pub use operand::Operand;

use crate::catalogue::{near, suggested};
use crate::code::{Code, GenerateError, helper};
use crate::recipe::{Expr, Field, Hook, Name, Recipe, S64, Site, Source, Type, U64, Unit, hex64};
use crate::sys::{self, SysError};
use sillage_bpf::{Alu, Cond, Reg, Width};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

use Reg::*;

/// Where the kernel says which kinds of probes it has.
const UNITS: &str = "/sys/bus/event_source/devices";

/// Why a probe cannot be.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The text names no place.
    #[error("{text} is no place: {expected} is expected")]
    Place {
        /// The text.
        text: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// The kernel was built without.
    #[error("this kernel was built without probes in {whose} code ({option} is not set)")]
    NoUnit {
        /// The kernel's own, or programs'.
        whose: &'static str,
        /// What is missing.
        option: &'static str,
    },
    /// The kernel has no such symbol.
    #[error("this kernel has no function {symbol}{}", suggested(.near))]
    NoKernelSymbol {
        /// The name.
        symbol: String,
        /// Names that are near to it.
        near: Vec<String>,
    },
    /// The kernel lets no probe be there.
    #[error("this kernel takes no probe at {place}: {reason}")]
    NoKernelProbe {
        /// The place, in the rule's words.
        place: String,
        /// Why not.
        reason: String,
    },
    /// The file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// It is no program and no library.
    #[error("{path} is no ELF file of a program or library: {reason}")]
    NoElf {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It has no such symbol.
    #[error("{path} has no function {symbol}{hint}")]
    NoSymbol {
        /// Its path.
        path: PathBuf,
        /// The name.
        symbol: String,
        /// What may be the matter.
        hint: String,
    },
    /// It has no such SDT probe.
    #[error("{path} has no SDT probe {provider}:{name}{hint}")]
    NoSdt {
        /// Its path.
        path: PathBuf,
        /// Provider.
        provider: String,
        /// Name.
        name: String,
        /// What may be the matter.
        hint: String,
    },
}

/// What a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// One place in the kernel's code.
    Kernel(String),
    /// Entry and return of a function of the kernel.
    KernelFunction(String),
    /// A place in a program's code.
    User(String),
    /// Entry and return of a function of a program.
    UserFunction(String),
}

/// Which version of a file was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl Identity {
    /// Of the file that has this name now.
    ///
    /// # Errors
    /// The file system's.
    pub fn of(path: &Path) -> std::io::Result<Identity> {
        std::fs::metadata(path).map(|metadata| Identity::from(&metadata))
    }

    /// True if one is still there for those who run it when the other has its name: it is another file.
    pub fn is_another_file(&self, other: &Identity) -> bool {
        (self.device, self.inode) != (other.device, other.inode)
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes: metadata.len(),
        }
    }
}

/// A file that is probed.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Its name.
    pub path: PathBuf,
    /// Which version of it was looked at.
    pub identity: Identity,
    /// That version: what is probed is what was looked at, whatever has its name by then.
    _file: Arc<File>,
}

impl PartialEq for Probed {
    fn eq(&self, other: &Probed) -> bool {
        self.path == other.path && self.identity == other.identity
    }
}

/// An event of a probe, found.
#[derive(Debug)]
pub struct ProbeEvent {
    /// Its name.
    pub name: String,
    /// A recipe for each place, all with fields of the same names and types.
    pub recipes: Vec<Recipe>,
    /// The file that it is in; None in the kernel.
    pub file: Option<Probed>,
    /// What could not be had of it.
    pub lacks: Vec<String>,
}

impl ProbeEvent {
    /// What two events must have in common to be one class in a trace: name, place and fields.
    pub fn class(&self, probe: &Probe) -> String {
        let fields = self.recipes.first().map(|recipe| recipe.fields.as_ref()).unwrap_or_default();
        let fields: Vec<&str> = fields.iter().map(|field| field.name.as_ref()).collect();
        format!("{} {} {}", self.name, probe.text(), fields.join(" "))
    }
}

impl PartialEq for ProbeEvent {
    /// Two that were found in the same version of a file are the same.
    fn eq(&self, other: &ProbeEvent) -> bool {
        let sites = |event: &ProbeEvent| -> Vec<Hook> {
            event.recipes.iter().map(|recipe| recipe.hook.clone()).collect()
        };
        self.name == other.name && self.file == other.file && sites(self) == sites(other)
    }
}

impl Eq for ProbeEvent {}

/// A place in a program's code, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `[elf:]PATH:SYMBOL`.
    Symbol(PathBuf, String),
    /// `sdt:PATH:PROVIDER:NAME`.
    Sdt(PathBuf, String, String),
}

impl Place {
    /// Reads it; a `:` in a part has a backslash in front.
    pub fn parse(text: &str) -> Option<Place> {
        let parts = parts(text);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            _ if parts.contains(&"") => None,
            [path, symbol] | ["elf", path, symbol] => Some(Place::Symbol(path.into(), symbol.into())),
            ["sdt", path, provider, name] => Some(Place::Sdt(path.into(), provider.into(), name.into())),
            _ => None,
        }
    }
}

fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![];
    let mut part = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => part.push(characters.next().unwrap_or(c)),
            ':' => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    parts
}

/// A place in the kernel's code: a symbol with an offset, or an address.
fn kernel_place(text: &str) -> Option<(Name, u64)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok().filter(|_| text.starts_with(|c: char| c.is_ascii_digit())),
    };
    if let Some(address) = number(text) {
        return Some((Cow::Borrowed(""), address));
    }
    let (symbol, offset) = text.split_once('+').map_or((text, Some(0)), |(s, offset)| (s, number(offset)));
    let is_symbol = |c: char| c.is_alphanumeric() || "_.$".contains(c);
    let fine = symbol.starts_with(|c: char| !c.is_ascii_digit()) && symbol.chars().all(is_symbol);
    Some((Cow::Owned(symbol.to_owned()), offset?)).filter(|_| fine)
}

impl Probe {
    /// Where it is, in the words of the rule.
    pub fn text(&self) -> &str {
        match self {
            Probe::Kernel(text)
            | Probe::KernelFunction(text)
            | Probe::User(text)
            | Probe::UserFunction(text) => text,
        }
    }

    /// Its events, of the file as it is now; `name` is the rule's.
    ///
    /// # Errors
    /// There is no such place, or the kernel has no such probes.
    pub fn events(&self, name: &str) -> Result<Vec<Arc<ProbeEvent>>, ProbeError> {
        let wrong = |text: &str, expected| ProbeError::Place { text: text.into(), expected };
        let events = match self {
            Probe::Kernel(text) | Probe::KernelFunction(text) => {
                let number = unit(Unit::Kernel)?;
                let place = kernel_place(text).ok_or_else(|| wrong(text, "SYMBOL[+OFFSET] or an address"))?;
                let events = match self {
                    Probe::Kernel(_) => vec![kernel_probe(name, place)],
                    _ => function(name, Unit::Kernel, &place, None),
                };
                check_kernel(text, number, &events)?;
                events
            }
            Probe::User(text) | Probe::UserFunction(text) => {
                unit(Unit::User)?;
                const EXPECTED: &str = "[elf:]PATH:SYMBOL or sdt:PATH:PROVIDER:NAME";
                let place = Place::parse(text).ok_or_else(|| wrong(text, EXPECTED))?;
                match (self, place) {
                    (Probe::User(_), Place::Sdt(path, provider, probe)) => {
                        vec![sdt_event(name, &path, &provider, &probe)?]
                    }
                    (Probe::UserFunction(_), Place::Sdt(..)) => {
                        return Err(wrong(text, "a function, [elf:]PATH:SYMBOL,"));
                    }
                    (_, Place::Symbol(path, symbol)) => {
                        let elf = elf::Elf::open(&path)?;
                        let place = (elf.place(), elf.function(&symbol)?);
                        let file = Some(elf.probed());
                        match self {
                            Probe::User(_) => vec![event(name, vec![recipe(name, user(&place), IP)], file)],
                            _ => function(name, Unit::User, &place, file),
                        }
                    }
                    _ => return Err(wrong(text, EXPECTED)),
                }
            }
        };
        Ok(events.into_iter().map(Arc::new).collect())
    }
}

/// Number of a kind of probes among the kernel's sources of events.
///
/// # Errors
/// This kernel has none of them.
pub fn unit(unit: Unit) -> Result<u32, ProbeError> {
    let (name, whose, option) = match unit {
        Unit::Kernel => ("kprobe", "its own", "CONFIG_KPROBE_EVENTS or CONFIG_KPROBES"),
        Unit::User => ("uprobe", "programs'", "CONFIG_UPROBE_EVENTS"),
    };
    let text = std::fs::read_to_string(format!("{UNITS}/{name}/type")).unwrap_or_default();
    text.trim().parse().map_err(|_| ProbeError::NoUnit { whose, option })
}

/// Puts probes at the events' places and takes them away again: the kernel alone knows whether it can.
fn check_kernel(text: &str, unit: u32, events: &[ProbeEvent]) -> Result<(), ProbeError> {
    const SYMBOLS: &str = "/proc/kallsyms";
    let sites = events.iter().flat_map(|event| &event.recipes).filter_map(|recipe| match &recipe.hook {
        Hook::Code(site) => Some(site),
        _ => None,
    });
    for site in sites {
        let Err(error) = sys::place_probe(unit, site) else { continue };
        let code = match &error {
            SysError::Failed { error, .. } => error.raw_os_error(),
            _ => None,
        };
        let reason = match code {
            Some(libc::ENOENT) if !site.place.is_empty() => {
                let symbols = std::fs::read_to_string(SYMBOLS).unwrap_or_default();
                let names = symbols.lines().filter_map(|line| line.split_ascii_whitespace().nth(2));
                let names: BTreeSet<&str> = names.collect();
                return Err(ProbeError::NoKernelSymbol {
                    symbol: site.place.to_string(),
                    near: near(names.into_iter(), &site.place),
                });
            }
            Some(libc::ENOENT) => "none of its code is there".into(),
            Some(libc::EADDRNOTAVAIL) => "more than one function has this name; give an address".into(),
            Some(libc::EINVAL | libc::EILSEQ | libc::ERANGE) if site.returns && site.offset != 0 => {
                "a function begins at its symbol".into()
            }
            Some(libc::EINVAL | libc::EILSEQ | libc::ERANGE) => {
                "no instruction begins there, or the kernel itself must not be interrupted there".into()
            }
            _ => error.to_string(),
        };
        return Err(ProbeError::NoKernelProbe { place: text.into(), reason });
    }
    Ok(())
}

/// Where the instruction is that was hit.
const IP: &[Field] = &[hex64("ip", Expr::Register("ip"))];
/// The kernel's programs see its own breakpoint behind its one byte.
const KERNEL_IP: Expr =
    Expr::Op(Alu::Sub, &Expr::Register("ip"), &Expr::Const(if cfg!(target_arch = "x86_64") { 1 } else { 0 }));
/// The function whose return was hit; kernels before 6.6 know it of their own functions alone, and 0 of others.
const FUNCTION: Expr = Expr::Custom(|code| {
    code.asm.mov(R1, R6);
    code.asm.call(helper::FUNCTION_IP);
    code.asm.mov(R1, R0);
    Ok(())
});

/// Probes of a function's return at a time whose doings are seen through.
const RETURNS_MAX: usize = 4;

/// Where a function of the kernel was called from, at its first instruction. The top of the stack says it,
/// unless a probe of the function's return (such as our own) was there before and keeps it in a list of the
/// task's, since 5.18; on kernels before, it is the address that the probe has put there.
fn kernel_caller(code: &mut Code<'_>) -> Result<(), GenerateError> {
    const TOP: Expr = Expr::Behind { pointer: &Expr::Register("sp"), of: "list_head", path: "next" };
    code.value(&TOP)?;
    let newest = crate::recipe::current("rethooks.first");
    if code.check(&newest).is_err() {
        return Ok(());
    }
    let link = code.offset_of("rethook_node", "llist")? as i32;
    let frame = code.offset_of("rethook_node", "frame")? as i32 - link;
    let address = code.offset_of("rethook_node", "ret_addr")? as i32 - link;
    let done = code.asm.label();
    let caller = code.spill(R1);
    code.value(&newest)?;
    let node = code.spill(R1);
    for _ in 0..RETURNS_MAX {
        code.unspill(R1, node);
        code.asm.jump_if(Cond::Eq, R1, 0, done);
        code.asm.alu(Alu::Add, R1, frame);
        code.read_kernel(Width::B8)?;
        code.asm.mov(R2, R1);
        code.register("sp")?;
        code.asm.jump_if(Cond::Ne, R1, R2, done);
        code.unspill(R1, node);
        code.asm.alu(Alu::Add, R1, address);
        code.read_kernel(Width::B8)?;
        code.asm.store(Width::B8, R10, caller.offset(), R1);
        code.unspill(R1, node);
        code.read_kernel(Width::B8)?;
        code.asm.store(Width::B8, R10, node.offset(), R1);
    }
    code.asm.bind(done);
    code.unspill(R1, caller);
    code.release(2);
    Ok(())
}

fn recipe(name: &str, site: Site, fields: &[Field]) -> Recipe {
    Recipe { name: Cow::Owned(name.to_owned()), hook: Hook::Code(site), fields: Cow::Owned(fields.to_vec()) }
}

fn user(place: &(Name, u64)) -> Site {
    Site { unit: Unit::User, place: place.0.clone(), offset: place.1, semaphore: 0, returns: false }
}

fn event(name: &str, recipes: Vec<Recipe>, file: Option<Probed>) -> ProbeEvent {
    ProbeEvent { name: name.into(), recipes, file, lacks: Vec::new() }
}

fn kernel_probe(name: &str, place: (Name, u64)) -> ProbeEvent {
    let site = Site { unit: Unit::Kernel, ..user(&place) };
    event(name, vec![recipe(name, site, &[hex64("ip", KERNEL_IP)])], None)
}

/// Entry and return of a function.
fn function(name: &str, unit: Unit, place: &(Name, u64), file: Option<Probed>) -> Vec<ProbeEvent> {
    let site = Site { unit, ..user(place) };
    // At the first instruction, the top of the stack says where it was called from.
    let (ip, caller) = match unit {
        Unit::Kernel => (KERNEL_IP, Expr::Custom(kernel_caller)),
        Unit::User => (Expr::Register("ip"), Expr::Operand(Operand::top_of_stack())),
    };
    let entry = [hex64("ip", ip), hex64("parent_ip", caller)];
    let mut exit = vec![hex64("ip", FUNCTION), hex64("parent_ip", Expr::Register("ip"))];
    if unit == Unit::User {
        exit.push(number("ret", true, Expr::Register("ax")));
    }
    let (entered, left) = (format!("{name}_entry"), format!("{name}_exit"));
    let back = Site { returns: true, ..site.clone() };
    vec![
        event(&entered, vec![recipe(&entered, site, &entry)], file.clone()),
        event(&left, vec![recipe(&left, back, &exit)], file),
    ]
}

fn number(name: &str, signed: bool, from: Expr) -> Field {
    let ty = Type::Int(if signed { S64 } else { U64 });
    Field { name: Cow::Owned(name.to_owned()), ty, from: Source::Kernel(from) }
}

fn sdt_event(name: &str, path: &Path, provider: &str, probe: &str) -> Result<ProbeEvent, ProbeError> {
    let elf = elf::Elf::open(path)?;
    let sites = elf.sdt(provider, probe)?;
    let parsed: Vec<Vec<Option<operand::Argument>>> = sites
        .iter()
        .map(|site| site.arguments.iter().map(|text| operand::Argument::parse(text, site, &elf)).collect())
        .collect();
    // What any place lacks, no record has: the places share one class.
    let count = parsed.iter().map(Vec::len).max().unwrap_or(0);
    let has = |index: &usize| parsed.iter().all(|site| matches!(site.get(*index), Some(Some(_))));
    let (known, unknown): (Vec<usize>, Vec<usize>) = (0..count).partition(has);
    let signed = |index: usize| parsed.iter().any(|site| site[index].is_some_and(|argument| argument.signed));
    let recipes = sites.iter().zip(&parsed).map(|(site, arguments)| {
        let fields = known.iter().filter_map(|index| {
            let argument = arguments[*index]?;
            let from = Expr::Operand(argument.operand);
            Some(number(&format!("arg{index}"), signed(*index), from))
        });
        let fields: Vec<Field> = IP.iter().cloned().chain(fields).collect();
        let place = (elf.place(), site.offset);
        recipe(name, Site { semaphore: site.semaphore, ..user(&place) }, &fields)
    });
    let lack = |index: usize| {
        let texts: Vec<&str> =
            sites.iter().filter_map(|site| site.arguments.get(index).map(String::as_str)).collect();
        format!("event {name}: argument {index} is at {}, which is not understood", texts.join(", "))
    };
    Ok(ProbeEvent {
        lacks: unknown.into_iter().map(lack).collect(),
        ..event(name, recipes.collect(), Some(elf.probed()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let symbol = |path: &str, symbol: &str| Some(Place::Symbol(path.into(), symbol.into()));
        assert_eq!(Place::parse("/bin/sh:main"), symbol("/bin/sh", "main"));
        assert_eq!(Place::parse("elf:/a\\:b:f\\\\"), symbol("/a:b", "f\\"));
        assert_eq!(
            Place::parse("sdt:/bin/sh:p:n"),
            Some(Place::Sdt("/bin/sh".into(), "p".into(), "n".into()))
        );
        for text in ["", "a", "a:", ":b", "sdt:a:b", "a:b:c", "sdt:a:b:c:d"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
        assert_eq!(kernel_place("vfs_read+0x10"), Some(("vfs_read".into(), 16)));
        assert_eq!(kernel_place("0xffff800000000000"), Some(("".into(), 0xffff_8000_0000_0000)));
        assert_eq!(kernel_place("f.cold"), Some(("f.cold".into(), 0)));
        assert_eq!(kernel_place("0x"), None);
        assert_eq!((kernel_place("+5"), kernel_place("f+x"), kernel_place("a b")), (None, None, None));
    }

    #[test]
    fn what_this_kernel_has_not_is_named() {
        if let Err(error) = Probe::Kernel("vfs_read".into()).events("e") {
            assert!(error.to_string().contains("CONFIG_KPROBE"), "{error}");
        }
    }

    #[test]
    fn files_without_the_place_say_why() {
        let show = |text: &str| Probe::User(text.into()).events("e").map(drop).unwrap_err().to_string();
        if unit(Unit::User).is_err() {
            return eprintln!("SKIPPED: this kernel has no probes in programs' code");
        }
        assert_eq!(
            show("/etc/passwd:f"),
            "/etc/passwd is no ELF file of a program or library: Unknown file magic"
        );
        assert!(show("/no/such/file:f").starts_with("/no/such/file: No such file"));
        assert!(show("/etc:f").starts_with("/etc: "));
        let own = std::env::current_exe().unwrap();
        let text = show(&format!("{}:no_such_function_here", own.display()));
        assert!(text.contains(" has no function no_such_function_here"), "{text}");
        let text = show(&format!("sdt:{}:p:n", own.display()));
        assert!(text.ends_with("has no SDT probe p:n (it has none at all)"), "{text}");
        let text = show("/bin/true:main");
        assert!(text.contains("stripped"), "{text}");
    }
}
