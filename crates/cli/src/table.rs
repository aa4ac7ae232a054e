//! Rows aligned for people: two blanks between columns, none behind the last.

use unicode_width::UnicodeWidthStr as _;

use crate::words::printable;

/// Rows under heads.
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns whose head begins with a blank are numbers, aligned at their end.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// One more row, with a cell for each head.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell).replace('\n', " ")).to_vec());
    }

    /// Lines without line breaks, the heads first if any is not empty.
    pub(crate) fn lines(&self) -> Vec<String> {
        let names: Vec<String> = self.heads.iter().map(|head| head.trim_start().to_owned()).collect();
        let has_heads = names.iter().any(|name| !name.is_empty());
        let all: Vec<&Vec<String>> = has_heads.then_some(&names).into_iter().chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].width()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let line = |row: &&Vec<String>| {
            let cells = row.iter().zip(&widths).zip(&self.heads).map(|((cell, width), head)| {
                let blanks = " ".repeat(width - cell.width());
                if head.starts_with(' ') { blanks + cell } else { cell.clone() + &blanks }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        all.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let mut table = Table::new(&["NAME", " CALLS", "STATE"]);
        table.row(["日本".into(), "7".into(), "active".into()]);
        table.row(["a\nb\u{1b}".into(), "1,234".into(), String::new()]);
        let expected =
            ["NAME       CALLS  STATE", "日本           7  active", "a b\\u{1b}  1,234"].map(str::to_owned);
        assert_eq!(table.lines(), expected);
        let mut bare = Table::new(&["", ""]);
        bare.row(["id".into(), "key_1".into()]);
        assert_eq!(bare.lines(), ["id  key_1"]);
    }
}
