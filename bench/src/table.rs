//! The table: what was measured, of whom, and whether it reaches what it should.

use serde::Serialize;

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured, and what each side carries.
    pub what: String,
    /// Of whom.
    pub who: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// Ours divided by this one.
    pub ours_to_it: Option<f64>,
    /// At most that.
    pub target: Option<f64>,
    /// Whether it is.
    pub met: Option<bool>,
    /// A target of the document itself.
    pub of_the_document: bool,
}

/// All lines.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// A line about ours, with the most that it may be.
    pub fn ours(&mut self, what: &str, value: f64, unit: &'static str, target: Option<f64>, of_the_document: bool) {
        let met = target.map(|target| value <= target);
        let (what, who) = (what.to_owned(), "rbee".to_owned());
        self.rows.push(Row { what, who, value, unit, ours_to_it: None, target, met, of_the_document });
    }

    /// A line about a peer, what ours is of it, and the most that it may be.
    pub fn peer(&mut self, what: &str, who: &str, value: f64, unit: &'static str, ratio: f64, target: Option<f64>) {
        let met = target.map(|target| ratio <= target);
        let (what, who) = (what.to_owned(), who.to_owned());
        self.rows.push(Row { what, who, value, unit, ours_to_it: Some(ratio), target, met, of_the_document: false });
    }

    /// Prints it.
    pub fn print(&self) {
        println!("| what | who | measured | ours : it | target | |\n| --- | --- | --- | --- | --- | --- |");
        for row in &self.rows {
            let ratio = row.ours_to_it.map_or(String::new(), |ratio| format!("1 : {:.1}", 1.0 / ratio));
            let target = match (row.target, row.ours_to_it) {
                (Some(target), Some(_)) => format!("1 : {:.1}", 1.0 / target),
                (Some(target), None) => format!("≤ {} {}", short(target), row.unit),
                (None, _) => String::new(),
            };
            let verdict = row.met.map_or("", |met| if met { "ok" } else { "missed" });
            println!(
                "| {} | {} | {} {} | {ratio} | {target} | {verdict} |",
                row.what,
                row.who,
                short(row.value),
                row.unit
            );
        }
    }

    /// Writes it as JSON.
    pub fn write(&self, file: &str) {
        let text = serde_json::to_string_pretty(self).expect("the table as JSON");
        std::fs::write(file, text + "\n").expect("write the table");
    }

    /// Whether a target of the document is missed.
    pub fn document_missed(&self) -> bool {
        self.rows.iter().any(|row| row.of_the_document && row.met == Some(false))
    }
}

fn short(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
