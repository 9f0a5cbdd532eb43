//! `--explain`: of every candidate of a find, whether it would be found, and what speaks against it.

use crate::args::{Global, Output};
use crate::connect;
use crate::failure::Failure;
use crate::show::json;
use crate::show::table::{Cell, Column, Tint, layout};
use crate::terminal;
use proto::explain_request::Question;

/// As many as the queen gives at once.
const PAGE: i32 = 10_000;

const COLUMNS: [Column; 3] = [Column::word("CANDIDATE", 0), Column::word("FITS", 0), Column::word("WHY NOT", 0)];

/// Prints a verdict on each candidate; `nothing` is said with exit code 3 when none fits.
pub async fn run(global: &Global, question: Question, nothing: String) -> Result<(), Failure> {
    let answer = ask(global, question).await?;
    match global.output {
        Output::Json => json::print("ExplainResponse", &answer)?,
        Output::Jsonl => answer.verdicts.iter().try_for_each(|verdict| json::print_line("Verdict", verdict))?,
        Output::Name => {
            let chosen = answer.verdicts.iter().filter(|verdict| verdict.chosen);
            chosen.into_iter().try_for_each(|verdict| terminal::put_line(&verdict.name))?;
        }
        // Sentences are what was asked for: none is cut.
        Output::Table | Output::Wide => {
            let rows: Vec<Vec<Cell>> = answer.verdicts.iter().flat_map(rows).collect();
            terminal::put(layout(&COLUMNS, &rows, None, terminal::colourful(global.color)))?;
        }
    }
    if answer.verdicts.iter().any(|verdict| verdict.chosen) { Ok(()) } else { Err(Failure::Nothing(nothing)) }
}

/// All pages as one answer, at the revision of the first.
async fn ask(global: &Global, question: Question) -> Result<proto::ExplainResponse, Failure> {
    let mut client = connect::scheduler(global).await?;
    let mut whole = proto::ExplainResponse::default();
    loop {
        let page_token = std::mem::take(&mut whole.next_page_token);
        let first = page_token.is_empty();
        let request = proto::ExplainRequest { question: Some(question.clone()), page_size: PAGE, page_token };
        let page = connect::answer(global.timeout, "explain a find", client.explain(request)).await?;
        whole.verdicts.extend(page.verdicts);
        whole.next_page_token = page.next_page_token;
        if first {
            (whole.revision, whole.coverage) = (page.revision, page.coverage);
        }
        if whole.next_page_token.is_empty() {
            return Ok(whole);
        }
    }
}

/// A line for each objection; the name stands on the first.
fn rows(verdict: &proto::Verdict) -> Vec<Vec<Cell>> {
    let fits = if verdict.chosen { Cell::tinted("yes", Tint::Green) } else { Cell::tinted("no", Tint::Yellow) };
    let sentences = verdict.objections.iter().map(|objection| objection.sentence.as_str());
    let mut rows: Vec<Vec<Cell>> =
        sentences.map(|sentence| vec![Cell::plain(""), Cell::plain(""), Cell::plain(sentence)]).collect();
    if rows.is_empty() {
        rows.push(vec![Cell::plain(""), Cell::plain(""), Cell::plain("")]);
    }
    (rows[0][0], rows[0][1]) = (Cell::plain(&verdict.name), fits);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_objection_has_a_line_and_the_name_stands_once() {
        let objection = |sentence: &str| proto::Objection { sentence: sentence.into(), ..Default::default() };
        let objections = vec![objection("it is busy"), objection("held by reservation r1")];
        let refused = proto::Verdict { name: "box/llm/1".into(), chosen: false, objections };
        let chosen = proto::Verdict { name: "box/llm/2".into(), chosen: true, objections: vec![] };
        let all: Vec<Vec<Cell>> = [refused, chosen].iter().flat_map(rows).collect();
        let told = layout(&COLUMNS, &all, None, false);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[1], "box/llm/1  no    it is busy");
        assert_eq!(lines[2], "                 held by reservation r1");
        assert_eq!(lines[3].trim_end(), "box/llm/2  yes");
    }
}
