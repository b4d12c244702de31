//! Every field type of the macros, in C, C++ and `_LGPL_SOURCE` programs: what is registered, and
//! the bytes of each payload.

mod support;

use sillage_model::{Encoding, FieldType};
use support::programs::{command, compile, run};
use support::{Daemon, Options};

const TYPES: &str = "all:types i8=-42 u16=42 i32=-42 hex=0xabcdef01234567b3 port=13330 address=0x4030201 \
    single=1.5 twice=-2.25 text=\"hello\" nothing=\"(null)\" array=[1 2 3] array_hex=[0x1 0x2] \
    array_network=[258 772] array_text=\"abc\" _sequence_length=5 sequence=[1 2 3 4 5] \
    _sequence_hex_length=2 sequence_hex=[0x201 0x403] _sequence_network_length=2 \
    sequence_network=[258 772] _sequence_text_length=2 sequence_text=\"he\" colour=some(3) \
    colour_next=next(5)";

/// The payload of `all:types` in a trace that LTTng-UST 2.13 made of the same program.
#[rustfmt::skip]
const TYPES_PAYLOAD: &[u8] = &[
    0xd6, 42, 0, 0xd6, 0xff, 0xff, 0xff, 0xb3, 0x67, 0x45, 0x23, 0x01, 0xef, 0xcd, 0xab,
    0x34, 0x12, 4, 3, 2, 1,
    0, 0, 0xc0, 0x3f, 0, 0, 0, 0, 0, 0, 2, 0xc0,
    b'h', b'e', b'l', b'l', b'o', 0, b'(', b'n', b'u', b'l', b'l', b')', 0,
    1, 2, 3, 1, 2, 1, 2, 3, 4, b'a', b'b', b'c', 0, 0, 0,
    5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5,
    2, 1, 2, 3, 4, 2, 0, 0, 0, 1, 2, 3, 4, 2, 0, b'h', b'e',
    3, 0, 0, 0, 5,
];

fn records_everything(compiler: &str, source: &str, flags: &[&str], options: Options) {
    let daemon = Daemon::new(options);
    run(&mut command(compile(compiler, source, flags), Some(&daemon)));
    let events = daemon.events();
    let text: Vec<&str> = events.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(text[0], TYPES);
    assert_eq!(events[0].payload, TYPES_PAYLOAD);
    assert_eq!(text[1..4], ["all:sum a=1 b=2", "all:difference a=3 b=4", "all:empty"]);
    let strings: Vec<String> =
        (0..10).map(|i| format!("all:strings a={:?} b=\"end\"", "x".repeat(i * 7))).collect();
    assert_eq!(text[4..], strings);
    assert_eq!(daemon.lost(), [0; 8]);
}

#[test]
fn a_c_program_records_before_main_what_lttng_would() {
    records_everything("cc", "all.c", &[], Options::default());
}

#[test]
fn with_compact_headers_in_a_flight_recorder_with_ordered_clock() {
    let options = Options { compact: true, overwrite: true, ordered: true, ..Options::default() };
    records_everything("cc", "all.c", &[], options);
}

#[test]
fn without_a_usable_clock_page() {
    records_everything("cc", "all.c", &[], Options { clock: false, ..Options::default() });
}

#[test]
fn a_program_with_inlined_read_sections() {
    records_everything("cc", "all.c", &["-D_LGPL_SOURCE"], Options::default());
}

#[test]
fn a_program_that_copies_our_variables() {
    records_everything("cc", "all.c", &["-no-pie", "-fno-pie", "-D_LGPL_SOURCE"], Options::default());
}

#[test]
fn a_cpp_program() {
    records_everything("c++", "all.cpp", &[], Options::default());
}

#[test]
fn two_channels_record_the_same() {
    let daemon = Daemon::new(Options { channels: 2, ..Options::default() });
    run(&mut command(compile("cc", "all.c", &[]), Some(&daemon)));
    let texts = |channel| daemon.channel_events(channel).into_iter().map(|e| e.text).collect::<Vec<_>>();
    assert_eq!(texts(0).len(), 14);
    assert_eq!(texts(0), texts(1));
}

#[test]
fn the_daemon_learns_names_levels_and_types() {
    let daemon = Daemon::new(Options::default());
    run(&mut command(compile("cc", "all.c", &[]), Some(&daemon)));
    daemon.programs(|programs| {
        let p = &programs[0];
        assert_eq!(p.hello.vppid, std::process::id());
        assert_eq!(p.hello.procname, compile("cc", "all.c", &[]).file_name().unwrap().to_str().unwrap());
        let types = &p.seen["all:types"];
        assert_eq!(types.loglevel.name(), "WARNING");
        assert_eq!(types.emf_uri.as_deref(), Some("http://example.invalid/types"));
        let sum = &p.seen["all:sum"];
        assert_eq!(sum.loglevel.name(), "DEBUG_LINE");
        assert_eq!(sum.emf_uri, None);
        let field = |name: &str| &types.fields.iter().find(|f| f.name == name).unwrap().field_type;
        assert_eq!(field("text"), &FieldType::String(Encoding::Utf8));
        let FieldType::Sequence { length_name, encoding, .. } = field("sequence_text") else {
            panic!("{:?}", field("sequence_text"))
        };
        assert_eq!((length_name.as_str(), *encoding), ("_sequence_text_length", Encoding::Utf8));
        let FieldType::Enum { name, entries, .. } = field("colour") else { panic!() };
        assert_eq!(name, "all_colour");
        let labels: Vec<_> =
            entries.iter().map(|e| (e.label.as_str(), e.start.bits as i64, e.auto)).collect();
        assert_eq!(labels, [("below", -7, false), ("red", 1, false), ("some", 2, false), ("next", -1, true)]);
        assert!(types.fields.iter().all(|f| !["unseen", "silent"].contains(&f.name.as_str())));
    });
}

#[test]
fn formatted_messages_and_a_probe_of_the_programs_own() {
    let daemon = Daemon::new(Options { names: &["lttng_ust_trace"], ..Options::default() });
    for flags in [&[][..], &["-no-pie", "-fno-pie"]] {
        let seen = run(&mut command(compile("cc", "messages.c", flags), Some(&daemon)));
        assert_eq!(seen, "1\n", "the program's own probe was called while it was registered");
    }
    let source = support::programs::sources().join("messages.c");
    let logged = format!(
        "lttng_ust_tracelog:LTTNG_UST_TRACEPOINT_LOGLEVEL_INFO line=37 file={:?} func=\"main\" \
         _msg_length=12 msg=\"logged 6 7.5\"",
        source.to_str().unwrap()
    );
    let tracef = |text: &str| format!("lttng_ust_tracef:event _msg_length={} msg={text:?}", text.len());
    let want = [
        tracef("plain"),
        tracef("-3 text  2.50 x"),
        tracef("1 2 3 4 5 6 7 1.0 2.0 3.0 4.0 5.0 6.0 7.0 8.0 9.0"),
        tracef("list 5"),
        logged,
        tracef("twice 2"),
        tracef("twice 2"),
    ];
    let got: Vec<String> = daemon.events().into_iter().map(|e| e.text).collect();
    assert_eq!(got, [want.clone(), want].concat());
    // The message of 70,000 bytes, in both runs.
    assert_eq!(daemon.lost()[sillage_ring::layout::LostReason::TooLarge as usize], 2);
}
