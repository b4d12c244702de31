//! What was recorded and what was lost, in words.

use super::{Context, warning};
use sillage_control::{ChannelTotals, Summary};

/// Reasons why producers lose records, in the order of the counters.
const REASONS: [&str; 8] = [
    "ring full",
    "no CPU number",
    "interrupted too often",
    "signal handlers nested too deeply",
    "record too large",
    "in a vfork child",
    "no staging memory",
    "lock taken",
];

/// Bytes for people: `1.2 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Records that were lost, all reasons together, as far as their number is known: what programs could
/// not record, and what the disk did not take.
pub fn lost(totals: &ChannelTotals) -> u64 {
    let lost = totals.lost.iter().chain([&totals.kernel_lost, &totals.dropped_records]);
    lost.fold(0, |sum, n| sum.saturating_add(*n))
}

/// Sub-buffers that were lost: overwritten, or not written for want of room.
pub fn lost_packets(totals: &ChannelTotals) -> u64 {
    totals.overwritten.saturating_add(totals.dropped_packets)
}

/// Each kind of loss that happened.
pub fn losses(totals: &ChannelTotals) -> Vec<String> {
    let mut out: Vec<String> = totals
        .lost
        .iter()
        .zip(REASONS)
        .filter(|(count, _)| **count > 0)
        .map(|(count, reason)| format!("{count} records discarded ({reason})"))
        .collect();
    if totals.kernel_lost > 0 {
        out.push(format!(
            "{} records discarded (on a CPU that came online, or nested in a record of the same event)",
            totals.kernel_lost
        ));
    }
    if totals.overwritten > 0 {
        out.push(format!("{} sub-buffers overwritten", totals.overwritten));
    }
    if totals.dropped_packets > 0 {
        let bytes = size(totals.dropped_bytes);
        let records = match (totals.dropped_records, totals.uncounted_packets) {
            (records, 0) => format!("{records} records"),
            (0, _) => "an unknown number of records".into(),
            (records, uncounted) => format!("{records} records, and those of {uncounted} packets unknown"),
        };
        let packets = totals.dropped_packets;
        out.push(format!("{records} in {packets} packets ({bytes}) could not be written"));
    }
    if totals.refused_classes > 0 {
        out.push(format!("{} event types could not be described in the trace", totals.refused_classes));
    }
    out.extend(totals.troubles.iter().cloned());
    out
}

/// One line for each channel, and a warning for each loss.
pub fn print(context: &Context, summary: &Summary) {
    for channel in &summary.channels {
        let (packets, bytes) = (channel.packets, size(channel.bytes));
        context.say(format_args!("Channel {}: {bytes} of events in {packets} packets", channel.channel));
        for loss in losses(channel) {
            warning!("Channel {}: {loss}", channel.channel);
        }
    }
    for program in &summary.unanswered {
        warning!("{program} did not confirm that it stopped: its last events may be missing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        let sizes = [0, 999, 1000, 1_234_567, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.2 MB", "18446744.1 TB"]);
    }

    #[test]
    fn each_loss_is_named() {
        let totals = ChannelTotals {
            lost: [3, 0, 0, 0, 1, 0, 0, 0],
            dropped_packets: 2,
            dropped_bytes: 5000,
            dropped_records: 70,
            ..Default::default()
        };
        assert_eq!(lost(&totals), 74);
        let expected = [
            "3 records discarded (ring full)",
            "1 records discarded (record too large)",
            "70 records in 2 packets (5.0 kB) could not be written",
        ];
        assert_eq!(losses(&totals), expected);
        let unknown = |dropped_records| {
            let totals = ChannelTotals {
                dropped_packets: 3,
                dropped_bytes: 10,
                dropped_records,
                uncounted_packets: 1,
                ..Default::default()
            };
            losses(&totals).join("")
        };
        assert_eq!(unknown(0), "an unknown number of records in 3 packets (10 B) could not be written");
        assert_eq!(
            unknown(9),
            "9 records, and those of 1 packets unknown in 3 packets (10 B) could not be written"
        );
    }
}
