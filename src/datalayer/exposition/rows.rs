//! Every row of one series of a whole page.

use super::row;

/// Calls `each` with the labels, escapes untouched, and the value of every row of the series `name`. Rows that do not
/// keep to the format are passed over.
pub fn each_row(page: &[u8], name: &str, mut each: impl FnMut(&[(&[u8], &[u8])], f64)) {
    for line in page.split(|byte| *byte == b'\n') {
        let Some(rest) = line.trim_ascii_start().strip_prefix(name.as_bytes()) else { continue };
        if !matches!(rest.first(), Some(b'{' | b' ' | b'\t')) {
            continue;
        }
        if let Some(row) = row::parse(rest) {
            each(&row.labels, row.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_series_alone_are_told_and_bad_ones_passed_over() {
        let page = b"# TYPE a gauge\na{x=\"1\"} 2\nab 3\na 4 17\r\na{x=} 5\na\n a\t6";
        let mut found = Vec::new();
        each_row(page, "a", |labels, value| found.push((labels.len(), value)));
        assert_eq!(found, [(1, 2.0), (0, 4.0), (0, 6.0)]);
    }
}
