//! `stats`: what a trace holds.

use anyhow::Result;
use clap::Args;
use sillage_pipeline::sinks::{EventStats, Stats, StreamStats};

use super::Outcome;
use super::input::{Input, pump};
use super::progress::{Goes, Progress};
use super::threads;

/// `stats TRACE...`
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Show only so many kinds of events
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// What can not be opened.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut opened = arguments.input.selection.open(&arguments.input.paths)?;
    let mut progress = Progress::new(opened.source.as_ref(), Goes::Files);
    let threads = arguments.input.selection.threads();
    let (stats, outcome) = match threads::count(&opened, threads, &mut progress)? {
        Some(counted) => counted,
        None => {
            let mut stats = Stats::new();
            let outcome = pump(&mut opened, &mut stats, &mut progress)?;
            (stats, outcome)
        }
    };
    let text = if arguments.json { json(&stats) } else { table(&stats, arguments.limit) };
    super::say(&text)?;
    Ok(outcome)
}

/// Sums over streams.
fn total(stats: &Stats) -> StreamStats {
    stats.streams().iter().fold(StreamStats::default(), |mut all, stream| {
        all.add(stream);
        all
    })
}

fn duration_s(stats: &Stats) -> Option<f64> {
    let (first, last) = stats.range_ns()?;
    Some((i128::from(last) - i128::from(first)) as f64 / 1e9)
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

fn table(stats: &Stats, limit: Option<usize>) -> String {
    let (all, duration) = (total(stats), duration_s(stats));
    let rate = |count: u64| match duration {
        Some(seconds) if seconds > 0.0 => format!("{:.1}", count as f64 / seconds),
        _ => "-".into(),
    };
    let mut out = format!(
        "{:>14}  {:>6}  {:>14}  {:>12}  {:>9}  EVENT\n",
        "COUNT", "%", "PER SECOND", "SIZE", "AVERAGE"
    );
    let events = stats.events();
    let shown = limit.unwrap_or(events.len()).min(events.len());
    for event in &events[..shown] {
        let EventStats { name, count, size_bits } = event;
        let percent = *count as f64 * 100.0 / all.events.max(1) as f64;
        let average = *size_bits as f64 / 8.0 / (*count).max(1) as f64;
        let size = size(size_bits / 8);
        out.push_str(&format!(
            "{count:>14}  {percent:>6.2}  {:>14}  {size:>12}  {average:>7.1} B  {name}\n",
            rate(*count)
        ));
    }
    if shown < events.len() {
        out.push_str(&format!("{:>14}  more kinds of events\n", events.len() - shown));
    }
    out.push_str(&format!("{:>14}  events of {} kinds", all.events, events.len()));
    if let Some(seconds) = duration {
        out.push_str(&format!(" in {seconds:.6} s, {} per second", rate(all.events)));
    }
    out.push_str(&format!(
        "\n{:>14}  packets, {}, in {} streams\n",
        all.packets,
        size(all.size_bytes),
        stats.streams().len()
    ));
    out.push_str(&losses(stats, &all));
    out
}

fn losses(stats: &Stats, all: &StreamStats) -> String {
    if all.lost_events + all.lost_packets + all.uncounted_losses == 0 {
        return "       nothing  was lost\n".into();
    }
    let seen = all.events + all.lost_events;
    let percent = all.lost_events as f64 * 100.0 / seen.max(1) as f64;
    let mut out = format!("{:>14}  events lost ({percent:.2} % of all)\n", all.lost_events);
    if all.lost_packets > 0 {
        out.push_str(&format!("{:>14}  packets lost\n", all.lost_packets));
    }
    if all.uncounted_losses > 0 {
        out.push_str(&format!("{:>14}  losses of an unknown number of events\n", all.uncounted_losses));
    }
    for stream in stats.streams() {
        if stream.lost_events + stream.lost_packets + stream.uncounted_losses > 0 {
            out.push_str(&format!(
                "{:>14}  of them in {} stream class {} stream {}\n",
                stream.lost_events, stream.trace, stream.class_id, stream.id
            ));
        }
    }
    out
}

fn json(stats: &Stats) -> String {
    let events: Vec<_> = stats
        .events()
        .iter()
        .map(|event| {
            serde_json::json!({"name": event.name, "count": event.count, "size_bits": event.size_bits})
        })
        .collect();
    let streams: Vec<_> = stats
        .streams()
        .iter()
        .map(|stream| {
            serde_json::json!({
                "trace": stream.trace,
                "stream_class": stream.class_id,
                "stream": stream.id,
                "events": stream.events,
                "packets": stream.packets,
                "size_bytes": stream.size_bytes,
                "lost_events": stream.lost_events,
                "lost_packets": stream.lost_packets,
                "uncounted_losses": stream.uncounted_losses,
            })
        })
        .collect();
    let range = stats.range_ns().map(|(first, last)| serde_json::json!({"first_ns": first, "last_ns": last}));
    format!("{}\n", serde_json::json!({"events": events, "streams": streams, "range": range}))
}
