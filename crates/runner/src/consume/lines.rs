//! One message, one line. A payload must be JSON; line breaks between its tokens become blanks
//! (inside strings JSON has none), so that every line of the output is a whole value.

use serde::de::IgnoredAny;

/// Appends a payload and a line break.
pub(super) fn append(text: &mut Vec<u8>, payload: &[u8]) -> Result<(), serde_json::Error> {
    let _: IgnoredAny = serde_json::from_slice(payload)?;
    text.extend(payload.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        byte => *byte,
    }));
    text.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::append;

    #[test]
    fn every_line_is_a_whole_value() {
        let mut text = Vec::new();
        append(
            &mut text,
            b"{\n  \"a\": \"x\\ny\",\r\n  \"b\": 12345678901234567890.10\n}",
        )
        .expect("json");
        append(&mut text, b"[]").expect("json");
        let text = String::from_utf8(text).expect("utf-8");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        let value: serde_json::Value = serde_json::from_str(lines[0]).expect("json");
        assert_eq!(value["a"], "x\ny");
        assert!(lines[0].contains("12345678901234567890.10"), "numbers are left alone");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        assert!(append(&mut Vec::new(), b"\xff\xfe").is_err());
        assert!(append(&mut Vec::new(), b"").is_err());
        assert!(append(&mut Vec::new(), b"{} {}").is_err());
    }
}
