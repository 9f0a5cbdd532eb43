//! Columns that fit the terminal: wide texts are cut first, then the least important columns go.

use crate::terminal::plain;

/// Between two columns.
const GAP: &str = "  ";
/// A text column is not cut below this many characters.
const NARROWEST: usize = 10;

/// Colours that mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tint {
    /// All is well.
    Green,
    /// Look at this.
    Yellow,
    /// This is broken.
    Red,
    /// Less important.
    Dim,
}

impl Tint {
    fn code(self) -> &'static str {
        match self {
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }

    /// The text in this colour.
    pub fn paint(self, text: &str) -> String {
        format!("{}{text}\x1b[0m", self.code())
    }
}

/// One place in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What stands there; control characters are taken out when it is laid out.
    pub text: String,
    /// In which colour.
    pub tint: Option<Tint>,
}

impl Cell {
    /// Plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tint: None }
    }

    /// What is not known is a dash, never a zero.
    pub fn known(text: Option<String>) -> Self {
        text.filter(|text| !text.is_empty()).map_or(Self { text: "-".to_owned(), tint: Some(Tint::Dim) }, Self::plain)
    }

    /// Text in a colour.
    pub fn tinted(text: impl Into<String>, tint: Tint) -> Self {
        Self { text: text.into(), tint: Some(tint) }
    }
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Numbers stand to the right.
    pub right: bool,
    /// May be cut with an ellipsis.
    pub shrinks: bool,
    /// Goes first when there is no room; 0 never goes.
    pub spare: u8,
}

impl Column {
    /// A text that may be cut.
    pub const fn text(title: &'static str, spare: u8) -> Self {
        Self { title, right: false, shrinks: true, spare }
    }

    /// A word that is never cut.
    pub const fn word(title: &'static str, spare: u8) -> Self {
        Self { title, right: false, shrinks: false, spare }
    }

    /// A number.
    pub const fn number(title: &'static str, spare: u8) -> Self {
        Self { title, right: true, shrinks: false, spare }
    }
}

/// Lays rows out below their headings; without rows there is nothing, not even headings. `width` is that of the
/// terminal, `None` cuts nothing.
pub fn layout(columns: &[Column], rows: &[Vec<Cell>], width: Option<usize>, colour: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let clean: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().map(cleaned).collect()).collect();
    let mut widths: Vec<usize> = columns.iter().map(|column| length(column.title)).collect();
    for row in &clean {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(length(&cell.text));
        }
    }
    let kept = width.map_or_else(|| (0..columns.len()).collect(), |width| fit(columns, &mut widths, width));
    let mut out = String::new();
    let heading: Vec<Cell> =
        columns.iter().map(|column| Cell { text: column.title.to_owned(), tint: Some(Tint::Dim) }).collect();
    for row in std::iter::once(&heading).chain(&clean) {
        line(&mut out, columns, &kept, &widths, row, colour);
    }
    out
}

/// Makes `widths` fit into `width` and answers which columns stay.
fn fit(columns: &[Column], widths: &mut [usize], width: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    loop {
        let gaps = GAP.len() * kept.len().saturating_sub(1);
        let needed: usize = kept.iter().map(|&at| widths[at]).sum::<usize>() + gaps;
        let Some(over) = needed.checked_sub(width).filter(|over| *over > 0) else { return kept };
        let can_give = |at: usize| {
            let least = NARROWEST.max(length(columns[at].title));
            if columns[at].shrinks { widths[at].saturating_sub(least) } else { 0 }
        };
        let room: usize = kept.iter().map(|&at| can_give(at)).sum();
        if room >= over {
            // One character at a time from whichever is widest: at most a few hundred turns.
            for _ in 0..over {
                let widest = kept
                    .iter()
                    .copied()
                    .filter(|&at| columns[at].shrinks && widths[at] > NARROWEST.max(length(columns[at].title)));
                if let Some(at) = widest.max_by_key(|&at| widths[at]) {
                    widths[at] -= 1;
                }
            }
            return kept;
        }
        let spare = kept.iter().copied().filter(|&at| columns[at].spare > 0);
        let Some(goes) = spare.max_by_key(|&at| (columns[at].spare, at)) else { return kept };
        kept.retain(|&at| at != goes);
    }
}

fn line(out: &mut String, columns: &[Column], kept: &[usize], widths: &[usize], row: &[Cell], colour: bool) {
    for (place, &at) in kept.iter().enumerate() {
        let Some(cell) = row.get(at) else { continue };
        if place > 0 {
            out.push_str(GAP);
        }
        let text = cut(&cell.text, widths[at]);
        let blank = " ".repeat(widths[at].saturating_sub(length(&text)));
        let painted = match cell.tint.filter(|_| colour) {
            Some(tint) => tint.paint(&text),
            None => text,
        };
        if columns[at].right {
            out.push_str(&blank);
            out.push_str(&painted);
        } else {
            out.push_str(&painted);
            if place + 1 < kept.len() {
                out.push_str(&blank);
            }
        }
    }
    out.push('\n');
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Names come from other machines: nothing in them may steer this terminal.
fn cleaned(cell: &Cell) -> Cell {
    Cell { text: plain(&cell.text), tint: cell.tint }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] =
        [Column::text("WORKER", 0), Column::text("MODEL", 2), Column::number("CPU%", 0), Column::word("ENDPOINT", 9)];

    fn rows() -> Vec<Vec<Cell>> {
        let row = |texts: [&str; 4]| texts.map(Cell::plain).to_vec();
        vec![
            row(["box/llm/8080", "meta-llama/Llama-3.2-1B-Instruct-GGUF", "100.0", "http://10.0.0.1:8080"]),
            row(["box/llm/8081", "-", "3.5", "-"]),
        ]
    }

    #[test]
    fn off_a_terminal_nothing_is_cut() {
        let told = layout(&COLUMNS, &rows(), None, false);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("Instruct-GGUF  100.0  http://10.0.0.1:8080"), "{told}");
        assert!(lines[2].contains("    3.5  -"), "{told}");
        assert!(!told.contains('\x1b'));
    }

    #[test]
    fn a_table_fits_the_terminal() {
        for width in [40, 50, 60, 70, 80] {
            let told = layout(&COLUMNS, &rows(), Some(width), false);
            assert!(told.lines().all(|line| length(line) <= width), "{width}\n{told}");
            assert!(told.contains("CPU%") && told.contains("100.0"), "{told}");
        }
        assert!(layout(&COLUMNS, &rows(), Some(60), false).contains('…'));
        assert!(!layout(&COLUMNS, &rows(), Some(40), false).contains("ENDPOINT"));
    }

    #[test]
    fn colours_do_not_move_columns_and_names_cannot_steer_the_terminal() {
        let rows =
            vec![vec![Cell::tinted("a\x1b[2Jb", Tint::Red), Cell::plain("x"), Cell::plain("1"), Cell::plain("-")]];
        let told = layout(&COLUMNS, &rows, None, true);
        assert!(told.contains("\x1b[31ma [2Jb\x1b[0m  x"), "{told:?}");
    }
}
