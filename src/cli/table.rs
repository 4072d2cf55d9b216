//! Tables for a terminal: columns as wide as they must be.

/// Lines up rows under a header. The last column is not padded, so that nothing trails.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if let Some(known) = widths.get_mut(column) {
                *known = (*known).max(width(cell));
            }
        }
    }
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let lines = std::iter::once(&header).chain(rows).map(|row| {
        let mut line = String::new();
        for (cell, width_of_column) in row.iter().zip(&widths) {
            line += cell;
            line.extend(std::iter::repeat_n(' ', width_of_column + 2 - width(cell)));
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// An empty cell would shift the eye: a dash in its place.
pub(super) fn cell(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "Björn".to_owned(), "1".to_owned()],
            vec!["bcd".to_owned(), cell(""), "22".to_owned()],
        ];
        let made = table(&["REF", "SUBJECT", "N"], &rows);
        assert_eq!(made, "REF  SUBJECT  N\na    Björn    1\nbcd  -        22");
    }
}
