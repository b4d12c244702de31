//! What the system tells programs about itself, as payloads of the dump's events: interrupts, interfaces,
//! block devices, processors. What cannot be read is left out.

use std::fs::read_to_string;
use std::net::Ipv4Addr;

/// The payloads of an event.
pub(super) fn payloads(event: &str) -> Vec<Vec<u8>> {
    match event {
        "lttng_statedump_start" | "lttng_statedump_end" => vec![Vec::new()],
        "lttng_statedump_interrupt" => interrupts(&read_to_string("/proc/interrupts").unwrap_or_default()),
        "lttng_statedump_network_interface" => interfaces(),
        "lttng_statedump_block_device" => devices(&read_to_string("/proc/partitions").unwrap_or_default()),
        "lttng_statedump_cpu_topology" => processors(&read_to_string("/proc/cpuinfo").unwrap_or_default()),
        _ => Vec::new(),
    }
}

fn put_text(payload: &mut Vec<u8>, text: &str) {
    payload.extend(text.bytes().filter(|byte| *byte != 0));
    payload.push(0);
}

/// Lines `24:  0  17  PCI-MSI 65536-edge  virtio0-config, other`: number, counts, chip, pin, actions. Only
/// what has a number is an interrupt of a device.
fn interrupts(text: &str) -> Vec<Vec<u8>> {
    let cpus = text.lines().next().map_or(0, |line| line.split_whitespace().count());
    let line = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number: u32 = number.trim().parse().ok()?;
        let mut words = rest.split_whitespace().skip(cpus);
        let chip = words.next()?;
        // The pin, as `65536-edge` or `6-edge`; older kernels print the trigger alone.
        let words: Vec<&str> = words.skip(1).collect();
        let actions = words.join(" ");
        let actions = actions.split(", ").filter(|action| !action.is_empty()).map(|action| {
            let mut payload = number.to_ne_bytes().to_vec();
            put_text(&mut payload, chip);
            put_text(&mut payload, action);
            payload.extend(0i32.to_ne_bytes());
            payload
        });
        Some(actions.collect::<Vec<_>>())
    };
    text.lines().skip(1).filter_map(line).flatten().collect()
}

/// One for each IPv4 address of an interface.
fn interfaces() -> Vec<Vec<u8>> {
    crate::sys::interface_addresses().into_iter().map(|(name, address)| interface(&name, address)).collect()
}

fn interface(name: &str, address: Ipv4Addr) -> Vec<u8> {
    let mut payload = Vec::new();
    put_text(&mut payload, name);
    payload.extend(address.octets());
    payload
}

/// Lines `254  0  10485760 vda`: the kernel's number of a device is major << 20 | minor.
fn devices(text: &str) -> Vec<Vec<u8>> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let major: u32 = words.next()?.parse().ok()?;
        let minor: u32 = words.next()?.parse().ok()?;
        let name = words.nth(1)?;
        let mut payload = (major << 20 | minor).to_ne_bytes().to_vec();
        put_text(&mut payload, name);
        Some(payload)
    };
    text.lines().filter_map(line).collect()
}

/// Blocks of `key : value` lines, one for each processor. Other machines than x86 have no such block.
fn processors(text: &str) -> Vec<Vec<u8>> {
    let block = |block: &str| {
        let value = |key: &str| {
            let pairs = block.lines().filter_map(|line| line.split_once(':'));
            pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()).next()
        };
        let number = |key: &str| value(key).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0);
        let mut payload = Vec::new();
        put_text(&mut payload, "x86");
        payload.extend((value("processor")?.parse::<u16>().ok()?).to_ne_bytes());
        put_text(&mut payload, value("vendor_id")?);
        payload.extend([number("cpu family") as u8, number("model") as u8]);
        put_text(&mut payload, value("model name")?);
        for key in ["physical id", "core id", "cpu cores"] {
            payload.extend((number(key) as u16).to_ne_bytes());
        }
        Some(payload)
    };
    text.split("\n\n").filter_map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_becomes_payloads() {
        let text = "      CPU0  CPU1\n  4:  0  17  IO-APIC  4-edge  ttyS0, other\nNMI:  0  0  Non-maskable\n";
        assert_eq!(
            interrupts(text),
            [&b"\x04\0\0\0IO-APIC\0ttyS0\0\0\0\0\0"[..], b"\x04\0\0\0IO-APIC\0other\0\0\0\0\0"]
        );
        assert_eq!(devices("major minor  #blocks  name\n\n 254  16  10 vdb\n"), [b"\x10\0\xe0\x0fvdb\0"]);
        assert_eq!(interface("lo", Ipv4Addr::LOCALHOST), b"lo\0\x7f\0\0\x01");
        let text = "processor\t: 1\nvendor_id\t: V\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: M 1\n\
                    physical id\t: 0\ncore id\t\t: 3\ncpu cores\t: 4\n\n";
        assert_eq!(processors(text), [b"x86\0\x01\0V\0\x19\x11M 1\0\0\0\x03\0\x04\0"]);
    }
}
