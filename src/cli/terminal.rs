//! What commands say to people: tables, records, times; and what they ask for without showing it.
//!
//! What comes from elsewhere (names, notes, addresses) is escaped, so that it cannot steer a terminal.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use jiff::Timestamp;
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;
use zeroize::Zeroizing;

use super::Failure;

/// Bytes of a line that is read as a password.
const LONGEST_LINE: u64 = 4_096;

/// Writes to standard output.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::of_output(&error))
}

/// A password: asked for when there is a terminal, otherwise the next line of standard input.
pub(super) fn password(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if io::stdin().is_terminal() {
        return Ok(Zeroizing::new(rpassword::prompt_password(format!("{prompt}: "))?));
    }
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().take(LONGEST_LINE).read_line(&mut line)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    if line.is_empty() { Err(Failure::new(format!("{prompt}: give it on standard input"))) } else { Ok(line) }
}

/// A password that is chosen: asked for twice when there is a terminal.
pub(super) fn new_password() -> Result<Zeroizing<String>, Failure> {
    let chosen = password("New password")?;
    if io::stdin().is_terminal() && *password("New password, again")? != *chosen {
        return Err(Failure::new("the two are not the same; nothing was changed"));
    }
    Ok(chosen)
}

/// Text for a terminal: what would steer it is escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_steering(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// The same for text of several lines, whose lines and tabs are meant.
pub(super) fn escaped_lines(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        line.split('\t').map(escaped).collect::<Vec<_>>().join("\t") + end
    });
    lines.collect()
}

/// Ends a line, or changes the direction of writing, so that what is shown would be another text.
fn is_steering(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Colours, where there is a terminal that has them and a person who has not asked for none (`NO_COLOR`).
#[derive(Clone, Copy)]
pub(super) struct Ink {
    is_on: bool,
}

/// The colours of standard output.
pub(super) fn ink() -> Ink {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    Ink { is_on: io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb }
}

impl Ink {
    /// No colours.
    pub(super) const NONE: Self = Self { is_on: false };

    pub(super) fn good(self, text: &str) -> String {
        self.painted("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.painted("31", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.painted("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.painted("2", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.is_on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A column of a table, or a line of a record: its title, and what it shows of an item.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// The items as lines, each column as wide as its widest cell; `none` when there are no items.
pub(super) fn table(items: &[Value], columns: &[Column], none: &str) -> String {
    if items.is_empty() {
        return format!("{none}\n");
    }
    let shown = |text: String| if text.is_empty() { "-".to_owned() } else { escaped(&text) };
    let titles: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let cells = items.iter().map(|item| columns.iter().map(|(_, cell)| shown(cell(item))).collect());
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let widest = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width()).max();
    let widths: Vec<usize> = (0..columns.len()).filter_map(widest).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width - cell.width().min(*width);
            let _ = write!(line, "{cell}{:padding$}  ", "");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// One item as lines of title and value; what it has not is left out.
pub(super) fn record(item: &Value, lines: &[Column]) -> String {
    let widest = lines.iter().map(|(title, _)| title.width()).max().unwrap_or_default();
    let mut text = String::new();
    for (title, value) in lines {
        let value = value(item);
        if !value.is_empty() {
            let padding = widest - title.width();
            let _ = writeln!(text, "{title}{:padding$}  {}", "", escaped(&value));
        }
    }
    text
}

/// The text at this place, for example `/last_used/at`: lists are joined, and what is not there is empty.
pub(super) fn text(item: &Value, place: &str) -> String {
    match item.pointer(place) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(|part| text(part, "")).collect::<Vec<_>>().join(" "),
        Some(Value::Bool(is)) => if *is { "yes" } else { "no" }.to_owned(),
        Some(other) => other.to_string(),
    }
}

/// The time at this place, to the minute, in UTC as the column's title says.
pub(super) fn minute(item: &Value, place: &str) -> String {
    time(item, place, "%Y-%m-%d %H:%M")
}

/// The time at this place, to the second.
pub(super) fn second(item: &Value, place: &str) -> String {
    time(item, place, "%Y-%m-%d %H:%M:%S UTC")
}

fn time(item: &Value, place: &str, format: &str) -> String {
    let written = text(item, place);
    written.parse::<Timestamp>().map_or(written, |time| time.strftime(format).to_string())
}

/// The items of a list.
pub(super) fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: [Column; 3] = [
        ("KEY", |item| text(item, "/id")),
        ("NAME", |item| text(item, "/name")),
        ("SINCE", |item| minute(item, "/at")),
    ];

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell_in_columns_of_a_terminal() {
        let items = [
            json!({ "id": "key_1", "name": "Worker" }),
            json!({ "id": "key_22", "name": "日本", "at": "2027-01-31T10:20:30Z" }),
        ];
        let expected = "KEY     NAME    SINCE\nkey_1   Worker  -\nkey_22  日本    2027-01-31 10:20\n";
        assert_eq!(table(&items, &COLUMNS, "no keys"), expected);
        assert_eq!(table(&[], &COLUMNS, "no keys"), "no keys\n");
    }

    #[test]
    fn a_record_leaves_out_what_is_not_there() {
        let item = json!({ "id": "key_1", "at": "2027-01-31T10:20:30Z" });
        assert_eq!(record(&item, &COLUMNS), "KEY    key_1\nSINCE  2027-01-31 10:20\n");
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_a_terminal() {
        let item = json!({ "id": "a\u{1b}[2Jb\nc", "name": "x\u{202e}y" });
        for shown in [table(std::slice::from_ref(&item), &COLUMNS, ""), record(&item, &COLUMNS)] {
            assert!(shown.contains("a\\u{1b}[2Jb\\nc") && shown.contains("x\\u{202e}y"), "{shown}");
            assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'));
        }
        assert_eq!(escaped_lines("a\u{1b}[2J\tb\r\n\n\tc"), "a\\u{1b}[2J\tb\\r\n\n\tc");
    }
}
