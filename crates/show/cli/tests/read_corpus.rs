//! The whole corpus through the program, against the standard output of the real Babeltrace 2:
//! text, text with everything, details. Every difference is named here with what must come out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn traces() -> Option<PathBuf> {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    let traces = shared.join("traces");
    if !traces.is_dir() {
        eprintln!("SKIPPED: {} is missing", traces.display());
        return None;
    }
    Some(traces)
}

/// A file of the corpus, which may be compressed.
fn stored(path: &Path) -> Option<Vec<u8>> {
    if let Ok(bytes) = std::fs::read(path) {
        return Some(bytes);
    }
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(".zst");
    let compressed = PathBuf::from(compressed);
    if !compressed.is_file() {
        return None;
    }
    let output = Command::new("zstd").args(["-dcq"]).arg(compressed).stdin(Stdio::null()).output();
    let output = output.expect("zstd runs");
    assert!(output.status.success());
    Some(output.stdout)
}

fn babeltrace2(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sillage"))
        .arg("babeltrace2")
        .args(arguments)
        .env("TZ", "UTC")
        .env("BABELTRACE_TERM_COLOR", "NEVER")
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

/// What the corpus says of a trace.
struct Row {
    name: String,
    kind: String,
    ctf: String,
    tool: String,
    exit: i64,
}

fn rows(traces: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(traces).expect("corpus is readable").flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path().join("info.json")) else {
            continue;
        };
        let info: serde_json::Value = serde_json::from_str(&text).expect("info is JSON");
        let word = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
        rows.push(Row {
            name: word("name"),
            kind: word("kind"),
            ctf: word("ctf"),
            tool: word("tool"),
            exit: info["exit"].as_i64().unwrap_or(0),
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// The three outputs and their arguments after the path.
const OUTPUTS: [(&str, &[&str]); 3] = [
    ("expected.txt", &["--clock-gmt"]),
    (
        "expected-full.txt",
        &[
            "--clock-gmt",
            "--clock-date",
            "--no-delta",
            "-n",
            "all",
            "-f",
            "trace:hostname,trace:domain,trace:procname,trace:vpid,loglevel,emf",
        ],
    ),
    (
        "expected-details.txt",
        &["-c", "sink.text.details", "-p", "color=never,with-trace-name=no,with-stream-name=no"],
    ),
];

/// Rows whose tool refuses a readable trace: what must come out instead, as the text.
fn better(traces: &Path, row: &Row) -> Option<Vec<u8>> {
    let of = |name: &str| stored(&traces.join(name).join("expected.txt"));
    match row.name.as_str() {
        // Drafts of CTF 2: the same traces are in the corpus in the final form.
        "tc-CTF2-7.0-barectf-event-before-packet" => of("bt2-barectf-event-before-packet"),
        "tc-CTF2-7.0-lttng-crash" => of("bt2-lttng-crash"),
        "tc-CTF2-7.0-meta-variant-no-underscore" => of("bt2-meta-variant-no-underscore"),
        "tc-CTF2-7.0-debug-info" => Some(DEBUG_INFO.as_bytes().to_vec()),
        _ => None,
    }
}

/// The events of the draft trace that has no twin, read off its bytes.
const DEBUG_INFO: &str = "\
[14:09:41.350889232] (+?.?????????) raton lttng_ust_statedump:bin_info: { cpu_id = 0 }, { vpid = 9746, ip = 0x7F09B7D2922B }, { baddr = 0x7FFCBD1E1000, memsz = 0, path = \"[linux-vdso.so.1]\", is_pic = 0, has_build_id = 0, has_debug_link = 0 }
[14:09:41.350905867] (+0.000016635) raton lttng_ust_statedump:bin_info: { cpu_id = 0 }, { vpid = 9746, ip = 0x7F09B7D2922B }, { baddr = 0x7F09B7F98000, memsz = 2114208, path = \"/libhello_so\", is_pic = 1, has_build_id = 1, has_debug_link = 0 }
[14:09:41.351812195] (+0.000906328) raton my_provider:my_first_tracepoint: { cpu_id = 0 }, { vpid = 9746, ip = 0x7F09B7F9A349 }, { my_string_field = \"hello, tracer\", my_integer_field = 42 }
[14:09:41.351883341] (+0.000071146) raton my_provider:my_first_tracepoint: { cpu_id = 0 }, { vpid = 9746, ip = 0x7F09B7F9A448 }, { my_string_field = \"recoltes et semailles\", my_integer_field = 57 }
";

/// `tc-funky_trace` against Babeltrace 1, which reads it: the offset of its clock does not fit 64
/// bits of nanoseconds, so Babeltrace 1's times are what is left of an overflow and ours are
/// unknown. Babeltrace 1 also prints the empty packet context and names variant options.
fn funky(traces: &Path, got: &str) -> Result<(), String> {
    let want = stored(&traces.join("tc-funky_trace/expected-bt1.txt")).expect("part of the corpus");
    let want = String::from_utf8_lossy(&want).into_owned();
    let (got, want): (Vec<&str>, Vec<&str>) = (got.lines().collect(), want.lines().collect());
    if got.len() != want.len() {
        return Err(format!("{} events instead of {}", got.len(), want.len()));
    }
    for (got, want) in got.iter().zip(&want) {
        let got = got.split_once(") ").map_or(*got, |(_, event)| event);
        let want = want.split_once(") ").map_or(*want, |(_, event)| event);
        let want = want.replacen(": { }, ", ": ", 1).replace("{ INT16_TYPE = -200 }", "{ -200 }");
        if got != want {
            return Err(format!("got  {got}\nwant {want}"));
        }
    }
    Ok(())
}

/// Babeltrace 2.0.4 shows an empty text as the text that an earlier event of the class had in its
/// place (`_seqtxt_length = 0, seqtxt = "back"`). What must come out is the empty text that the
/// packet has. The lines are equal when that is put right, and there are as many of them as said.
fn stale_text(row: &Row, output: &str, got: &str, want: &str) -> Option<Result<usize, String>> {
    let known = match row.name.as_str() {
        "gen-ust-lost1" | "gen-ust-pid" | "gen-ust-rich" | "gen-ust-rot" => "seqtxt",
        "tc-many-threads" => "filename",
        _ => return None,
    };
    let mut count = 0;
    let (got, want): (Vec<&str>, Vec<&str>) = (got.lines().collect(), want.lines().collect());
    if got.len() != want.len() {
        return Some(Err(format!("{} lines instead of {}", got.len(), want.len())));
    }
    for (index, (got_line, want_line)) in got.iter().zip(&want).enumerate() {
        if got_line == want_line {
            continue;
        }
        let empty_before = |at: usize| index > at && got[index - at].ends_with("_seqtxt_length: 0");
        let right = if output == "expected-details.txt" {
            known == "seqtxt"
                && *got_line == "    seqtxt: "
                && want_line.starts_with(got_line)
                && empty_before(1)
        } else {
            emptied(want_line, known).is_some_and(|line| line == *got_line)
                && (known == "filename" || got_line.contains("_seqtxt_length = 0, seqtxt = \"\""))
        };
        if !right {
            return Some(Err(format!("line {}:\ngot  {got_line}\nwant {want_line}", index + 1)));
        }
        count += 1;
    }
    Some(Ok(count))
}

/// The line with the text of a field emptied.
fn emptied(line: &str, field: &str) -> Option<String> {
    let key = format!(" {field} = \"");
    let from = line.find(&key)? + key.len();
    let bytes = line.as_bytes();
    let mut to = from;
    while bytes.get(to).is_some_and(|byte| *byte != b'"') {
        to += if bytes[to] == b'\\' { 2 } else { 1 };
    }
    Some(format!("{}{}", &line[..from], line.get(to..)?))
}

fn first_difference(got: &[u8], want: &[u8]) -> String {
    let lines = |bytes: &[u8]| bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (got, want) = (lines(got), lines(want));
    let at = got.iter().zip(&want).take_while(|(a, b)| a == b).count();
    let text = |lines: &[Vec<u8>]| {
        lines.get(at).map_or("(end)".into(), |line| String::from_utf8_lossy(line).into_owned())
    };
    format!("line {}:\n  got  {}\n  want {}", at + 1, text(&got), text(&want))
}

#[test]
fn all_of_the_corpus() {
    let Some(traces) = traces() else {
        return;
    };
    let (mut equal, mut justified, mut failures) = (0, BTreeMap::<&str, usize>::new(), Vec::new());
    for row in rows(&traces) {
        let trace = traces.join(&row.name).join("trace");
        let trace = trace.to_string_lossy().into_owned();
        for (output, arguments) in OUTPUTS {
            let Some(want) = stored(&traces.join(&row.name).join(output)) else {
                continue;
            };
            let mut arguments = [&[trace.as_str()], arguments].concat();
            if row.kind == "isect" {
                arguments.push("--stream-intersection");
            }
            let dialect = "color=never,with-trace-name=no,with-stream-name=no,dialect=\"2.1\"".to_owned();
            if output == "expected-details.txt" && row.ctf == "1.8" && row.tool.starts_with("2.1") {
                arguments[4] = &dialect;
            }
            let got = babeltrace2(&arguments);
            let place = format!("{} {output}", row.name);
            let refused = row.kind == "ok" && row.exit != 0;
            if !refused && got.status.success() != (row.exit == 0) {
                let complaint = String::from_utf8_lossy(&got.stderr).into_owned();
                failures.push(format!("{place}: {} instead of {}: {complaint}", got.status, row.exit));
                continue;
            }
            if got.stdout == want && !refused {
                equal += 1;
                continue;
            }
            let (got_text, want_text) =
                (String::from_utf8_lossy(&got.stdout), String::from_utf8_lossy(&want));
            if refused {
                let result = match output {
                    _ if !got.status.success() => Err("the trace must be read".to_owned()),
                    "expected.txt" if row.name == "tc-funky_trace" => funky(&traces, &got_text),
                    "expected.txt" => match better(&traces, &row) {
                        None => Err("what must come out is not stated".to_owned()),
                        Some(want) if want == got.stdout => Ok(()),
                        Some(want) => Err(first_difference(&got.stdout, &want)),
                    },
                    // The same events in another form.
                    _ => Ok(()),
                };
                match result {
                    Ok(()) => *justified.entry("read where Babeltrace refuses").or_default() += 1,
                    Err(why) => failures.push(format!("{place}: {why}")),
                }
                continue;
            }
            if row.name == "bt1-fail-invalid-packet-size" && output == "expected-details.txt" {
                // Babeltrace refuses the trace as a whole; the other streams are readable.
                assert!(got_text.contains("Stream beginning"), "{place}");
                *justified.entry("read up to the fault").or_default() += 1;
                continue;
            }
            match stale_text(&row, output, &got_text, &want_text) {
                Some(Ok(count)) if row.name != "tc-many-threads" || count == 1 => {
                    *justified.entry("equal but for texts of earlier events").or_default() += 1;
                }
                Some(Ok(count)) => failures.push(format!("{place}: {count} lines differ")),
                Some(Err(why)) => failures.push(format!("{place}: {why}")),
                None => failures.push(format!("{place}: {}", first_difference(&got.stdout, &want))),
            }
        }
    }
    println!("{equal} outputs equal, {justified:?}, {} wrong", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(equal > 200, "the corpus is not whole: {equal}");
}

/// Upstream's expected texts whose trace is in the corpus, in the wording of Babeltrace 2.1.
#[test]
fn upstream_expectations() {
    let Some(traces) = traces() else {
        return;
    };
    // (expectation, trace, parameters of the details sink)
    let details = "with-trace-name=no,with-stream-name=no";
    let named = "with-stream-name=no";
    let cases: &[(&str, &str, &str, &str)] = &[
        (
            "sink.text.details__default-compact-ctf1-mip0",
            "bt1-wk-heartbeat-u",
            named,
            "compact=yes,dialect=\"2.1-mip0\"",
        ),
        (
            "sink.text.details__default-compact-ctf1-mip1",
            "bt1-wk-heartbeat-u",
            named,
            "compact=yes,dialect=\"2.1\"",
        ),
        (
            "sink.text.details__default-compact-without-metadata",
            "bt1-wk-heartbeat-u",
            named,
            "compact=yes,with-metadata=no",
        ),
        (
            "sink.text.details__default-compact-without-time-ctf1-mip0",
            "bt1-wk-heartbeat-u",
            named,
            "compact=yes,with-time=no,dialect=\"2.1-mip0\"",
        ),
        (
            "sink.text.details__default-compact-without-time-ctf2-mip1",
            "bt2-wk-heartbeat-u",
            named,
            "compact=yes,with-time=no",
        ),
        ("sink.text.details__default-ctf2-mip1", "bt2-wk-heartbeat-u", named, ""),
        (
            "sink.text.details__default-without-data-ctf1-mip0",
            "bt1-wk-heartbeat-u",
            named,
            "with-data=no,dialect=\"2.1-mip0\"",
        ),
        (
            "sink.text.details__default-without-data-ctf1-mip1",
            "bt1-wk-heartbeat-u",
            named,
            "with-data=no,dialect=\"2.1\"",
        ),
        ("sink.text.details__default-without-data-ctf2-mip1", "bt2-wk-heartbeat-u", named, "with-data=no"),
        (
            "sink.text.details__default-without-metadata-mip0",
            "bt1-wk-heartbeat-u",
            named,
            "with-metadata=no,dialect=\"2.1-mip0\"",
        ),
        (
            "sink.text.details__default-without-names-ctf1-mip1",
            "bt1-wk-heartbeat-u",
            details,
            "with-stream-class-name=no,dialect=\"2.1\"",
        ),
        (
            "sink.text.details__default-without-names-ctf2-mip1",
            "bt2-wk-heartbeat-u",
            details,
            "with-stream-class-name=no",
        ),
        (
            "sink.text.details__default-without-time-ctf1-mip0",
            "bt1-wk-heartbeat-u",
            named,
            "with-time=no,dialect=\"2.1-mip0\"",
        ),
        (
            "sink.text.details__default-without-trace-name-ctf1-mip1",
            "bt1-wk-heartbeat-u",
            details,
            "dialect=\"2.1\"",
        ),
        ("sink.text.details__default-without-trace-name-ctf2-mip1", "bt2-wk-heartbeat-u", details, ""),
        (
            "sink.text.details__default-without-uuid-ctf1-mip0",
            "bt1-wk-heartbeat-u",
            named,
            "with-uuid=no,dialect=\"2.1-mip0\"",
        ),
        (
            "sink.text.details__default-without-uuid-ctf1-mip1",
            "bt1-wk-heartbeat-u",
            named,
            "with-uuid=no,dialect=\"2.1\"",
        ),
        ("src.ctf.fs__succeed__trace-2packets-ctf1-mip0", "bt1-2packets", details, "dialect=\"2.1-mip0\""),
        ("src.ctf.fs__succeed__trace-2packets-ctf1-mip1", "bt1-2packets", details, "dialect=\"2.1\""),
        ("src.ctf.fs__succeed__trace-2packets-ctf2-mip1", "bt2-2packets", details, ""),
        ("src.ctf.fs__succeed__trace-array-align-elem", "bt1-array-align-elem", details, "dialect=\"2.1\""),
        (
            "src.ctf.fs__succeed__trace-barectf-event-before-packet-ctf1-mip1",
            "bt1-barectf-event-before-packet",
            details,
            "dialect=\"2.1\"",
        ),
        (
            "src.ctf.fs__succeed__trace-barectf-event-before-packet-ctf2-mip1",
            "bt2-barectf-event-before-packet",
            details,
            "",
        ),
        (
            "src.ctf.fs__succeed__trace-clock-offset-goes-back-in-time",
            "bt2-clock-offset-goes-back-in-time",
            named,
            "",
        ),
        ("src.ctf.fs__succeed__trace-def-clk-freq-ctf1-mip1", "bt1-def-clk-freq", details, "dialect=\"2.1\""),
        ("src.ctf.fs__succeed__trace-meta-ctx-sequence", "bt1-meta-ctx-sequence", details, "dialect=\"2.1\""),
        (
            "src.ctf.fs__succeed__trace-session-rotation-ctf1-mip0",
            "bt1-session-rotation",
            details,
            "dialect=\"2.1-mip0\"",
        ),
        (
            "src.ctf.fs__succeed__trace-session-rotation-ctf1-mip1",
            "bt1-session-rotation",
            details,
            "dialect=\"2.1\"",
        ),
        ("src.ctf.fs__succeed__trace-session-rotation-ctf2-mip1", "bt2-session-rotation", details, ""),
        ("src.ctf.fs__succeed__trace-smalltrace-mip0", "bt1-smalltrace", details, "dialect=\"2.1-mip0\""),
    ];
    let mut failures = Vec::new();
    for (expectation, trace, base, params) in cases {
        let path = traces.join(format!("upstream-expects/plugins__{expectation}.expect"));
        let Some(want) = stored(&path) else {
            failures.push(format!("{expectation}: missing"));
            continue;
        };
        let input = traces.join(trace).join("trace").to_string_lossy().into_owned();
        let mut arguments = vec!["run", "--component", "source:source.ctf.fs", "-p"];
        let inputs = format!("inputs=[\"{input}\"]");
        arguments.push(&inputs);
        // Upstream's tests of the details sink name the trace.
        if expectation.starts_with("sink") {
            arguments.extend(["-p", "trace-name=\"the-trace\""]);
        }
        arguments.extend(["-c", "mux:filter.utils.muxer", "-c", "sink:sink.text.details", "-p", base]);
        if !params.is_empty() {
            arguments.extend(["-p", params]);
        }
        arguments.extend(["-x", "source:mux", "-x", "mux:sink"]);
        let got = babeltrace2(&arguments);
        if got.stdout != want {
            let complaint = String::from_utf8_lossy(&got.stderr).into_owned();
            let difference = first_difference(&got.stdout, &want);
            failures.push(format!("{expectation}: {difference}\n{complaint}"));
        }
    }
    println!("{} of {} equal", cases.len() - failures.len(), cases.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
