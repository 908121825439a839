//! Columns for people, as wide as their widest cell.

/// A table; every row has as many cells as the head.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

/// Spaces between two columns.
const GAP: usize = 3;

// === impl Table ===

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).into()],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| cleaned(&cell)).into());
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| width(&row[column])).max().unwrap_or(0))
            .collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (cell, wide) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', wide + GAP - width(cell)));
            }
            line.truncate(line.trim_end().len());
            line + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// What a service says about itself must not move the cursor or colour the terminal.
pub(crate) fn cleaned(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    // A name with an escape sequence in it could rewrite what a person sees of the others.
    #[test]
    fn columns_line_up_and_control_characters_do_not_pass() {
        let mut table = Table::new(["ID", "STATUS"]);
        table.row(["a\u{1b}[2J".to_owned(), "healthy".to_owned()]);
        table.row(["long-name-here".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "ID               STATUS\na\u{fffd}[2J            healthy\nlong-name-here\n"
        );
    }
}
