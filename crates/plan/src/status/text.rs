//! Words for people, bounded: what other programs said goes into one line of a known length.

/// Longest condition message and event note, in bytes: the apiserver refuses longer notes.
pub(super) const MESSAGE: usize = 1024;
/// Longest `why`, in bytes.
pub(super) const WHY: usize = 256;
/// Longest part that another program contributes to a message, in bytes.
const QUOTED: usize = 480;

/// At most `max` bytes of `text`, cut at the end with an ellipsis.
pub(super) fn clip(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    format!("{}…", text[..end].trim_end())
}

/// What another program said, in one bounded line; the beginning matters most.
pub(super) fn quote(text: &str) -> String {
    clip(&one_line(text, " "), QUOTED)
}

/// The last words of a container, in one bounded line; the end matters most.
pub(super) fn last_words(text: &str) -> String {
    let line = one_line(text, "; ");
    if line.len() <= QUOTED {
        return line;
    }
    let start = line.ceil_char_boundary(line.len() - QUOTED + '…'.len_utf8());
    format!("…{}", line[start..].trim_start())
}

/// `1 pod`, `2 pods`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn one_line(text: &str, separator: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    // Control characters would move a terminal's cursor when the message is shown.
    lines.join(separator).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::{clip, last_words, quote};

    // A message that is too long, or cut inside a character, would be refused by the apiserver, and no status written.
    #[test]
    fn text_is_cut_between_characters() {
        let long = "é".repeat(400);
        assert!(clip(&long, 256).len() <= 256);
        assert!(clip(&long, 256).ends_with('…'));
        assert!(quote(&long).len() <= 480 && last_words(&long).len() <= 480);
        assert!(last_words(&format!("{long} end")).ends_with("end"));
        assert_eq!(clip("short", 256), "short");
    }

    #[test]
    fn lines_and_control_characters_do_not_reach_a_terminal() {
        assert_eq!(last_words("panicked\n\n  at \u{1b}[31mx\t y\n"), "panicked; at [31mx y");
        assert_eq!(quote("a\nb"), "a b");
    }
}
