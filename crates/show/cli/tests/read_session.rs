//! `view` of a session by its name, with a fake program that records into it.

mod support;

use sillage_protocol::program::ProducerKind;
use support::{Home, Program, tracepoint};

#[test]
fn a_session_is_viewed_by_its_name_with_all_options() {
    let home = Home::new("view-session");
    home.ok("create s -o out");
    home.ok("enable-event -u p:*");
    home.ok("start");
    let mut program = Program::connect(&home, ProducerKind::Rseq);
    program.register(&[(1, tracepoint("p:a"))]);
    for value in 0..10 {
        assert_eq!(program.emit(1, value), 1);
    }
    home.ok("stop");
    let text = home.ok("view --no-delta");
    assert_eq!(text, home.babeltrace(&home.dir.join("out")));
    assert_eq!(text.lines().count(), 10);
    // By its name, by its place, by its place in a new option.
    for words in ["view s --no-delta", "view ./out --no-delta", "view -t out --no-delta"] {
        assert_eq!(home.ok(words), text, "{words}");
    }
    // A word is a session's name first, and else a directory.
    assert_eq!(home.ok("view out --no-delta"), text);
    assert_eq!(home.run("view nosuch"), (1, "Session name nosuch not found\n".to_owned()));
    let json = home.ok("view s --format json --filter i==7");
    assert!(json.contains("\"event\":\"p:a\"") && json.contains("\"i\":7"), "{json}");
    assert_eq!(json.lines().count(), 1);
    assert!(home.ok("view s --format count -n 3").contains("  3 Event messages"));
    home.ok("destroy");
    // The trace stays, the session does not.
    assert_eq!(home.run("view s").0, 1);
    assert_eq!(home.ok("view out --no-delta"), text);
}
