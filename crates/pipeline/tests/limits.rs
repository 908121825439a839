//! How large a file may be, and that a file beyond it is told by name and costs little.

use std::fmt::Write;

use flowctl_pipeline::{limits, read, write};

/// A few lines of YAML can describe gigabytes: a runner with 64 MiB would be killed without a word.
#[test]
fn bombs_are_refused_by_name() {
    let mut laughs = String::from("pipelines:\n  x:\n    a0: &a0 [lol, lol]\n");
    for level in 1..40 {
        let below = level - 1;
        writeln!(laughs, "    a{level}: &a{level} [*a{below}, *a{below}, *a{below}]").expect("a String takes all");
    }
    let deep_flow = format!("pipelines: {}", "[".repeat(100_000));
    let deep_map = (0..70).fold(String::new(), |text, depth| text + &"  ".repeat(depth) + "a:\n");
    let deep_flow_closed = format!("pipelines: {}{}", "[".repeat(70), "]".repeat(70));
    let many = format!("pipelines: [{}]", "1,".repeat(150_000));
    let large = format!("pipelines:\n  x:\n    name: {}\n", "a".repeat(1024 * 1024));
    let aliases = format!("pipelines:\n  a: &a v\n  b: [{}]\n", "*a, ".repeat(2_000));
    let fat = format!("pipelines:\n  a: &a {}\n  b: [*a, *a, *a]\n", "a".repeat(400_000));
    let tower = (1..10).fold("pipelines:\n  a0: &a0 [v]\n".to_owned(), |text, level| {
        let below = level - 1;
        let (open, close) = ("[".repeat(10), "]".repeat(10));
        format!("{text}  a{level}: &a{level} {open}*a{below}{close}\n")
    });
    let crowd = (0..2_000).fold("pipelines:\n".to_owned(), |text, index| {
        format!("{text}  k{index}: v\n")
    });
    let documents = "---\na: 1\n".repeat(1_000);
    let bombs = [
        ("billion laughs", laughs),
        ("deep flow", deep_flow),
        ("deep flow, closed", deep_flow_closed),
        ("deep map", deep_map),
        ("many values", many),
        ("large", large),
        ("large by aliases", fat),
        ("deep by aliases", tower),
        ("many pipelines", crowd),
        ("many aliases", aliases),
        ("many documents", documents),
    ];
    let mut report = String::new();
    for (title, text) in &bombs {
        let faults = read(text).expect_err(title);
        writeln!(report, "{title}: {}", faults.render("p.yaml")).expect("a String takes all");
    }
    insta::assert_snapshot!(report);
}

/// A runner reads its file on a thread with a small stack: a deep file must be told, not end the process.
#[test]
fn a_deep_file_is_read_on_a_small_stack() {
    let deep = |levels: usize| {
        let (open, close) = ("[{a: ".repeat(levels), "}]".repeat(levels));
        format!("pipeline:\n  source: {{type: A, config: {{a: {open}1{close}}}}}\n  consumers: [{{type: B}}]\n")
    };
    let thread = std::thread::Builder::new().stack_size(512 * 1024);
    let told = thread.spawn(move || {
        let file = read(&deep(29)).expect("as deep as it may be");
        assert_eq!(read(&write(&file)), Ok(file));
        read(&deep(31)).is_err() && read(&deep(100_000)).is_err()
    });
    assert!(told.expect("a thread").join().expect("no overflow"));
}

/// The largest files that are allowed must be read, or the limits would be lower than they say.
#[test]
fn files_just_within_the_limits_are_read() {
    let frame = |value: &str| {
        format!("pipelines:\n  x:\n    source: {{type: A, config: {{value: {value}}}}}\n    consumers: [{{type: B}}]\n")
    };
    // The map of the document, `pipelines`, `x`, `source` and `config` are five.
    let deep = |levels: usize| frame(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    assert!(read(&deep(limits::MAX_DEPTH - 5)).is_ok());
    assert!(read(&deep(limits::MAX_DEPTH - 4)).is_err());

    let sized = |bytes: usize| {
        let empty = frame("\"\"").len();
        frame(&format!("\"{}\"", "a".repeat(bytes - empty)))
    };
    assert!(read(&sized(limits::MAX_BYTES)).is_ok());
    assert!(read(&sized(limits::MAX_BYTES + 1)).is_err());

    let counted = |values: usize| frame(&format!("[{}]", vec!["1"; values].join(",")));
    assert!(read(&counted(limits::MAX_NODES - 100)).is_ok());
    assert!(read(&counted(limits::MAX_NODES)).is_err());
}
