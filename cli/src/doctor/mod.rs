//! `rbee doctor`: looks at this machine and says of each thing that it is fine, or what it costs and how to mend it.

mod kernel;
mod machine;
mod reach;
mod sources;

use crate::args::{Global, Output};
use crate::failure::Failure;
use crate::show::table::Tint;
use crate::{locate, terminal};
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    /// As it should be.
    Ok,
    /// rbee works, with less.
    Reduced,
    /// rbee cannot work like this.
    Broken,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    grade: Grade,
    /// What is, and what it costs.
    says: String,
    /// The command or the deed that mends it.
    mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, says: says.into(), mend: None }
    }

    fn reduced(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, grade: Grade::Reduced, says: says.into(), mend: Some(mend.into()) }
    }

    fn broken(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, grade: Grade::Broken, says: says.into(), mend: Some(mend.into()) }
    }
}

/// Checks everything; something broken is exit code 1.
pub async fn run(global: &Global) -> Result<(), Failure> {
    let mut findings = machine::check();
    let hive = reach::describe(global).await;
    let told = hive.as_ref().ok().map(|(_, hive)| hive.state_dir.clone()).filter(|dir| !dir.is_empty());
    let state_dir = told.map_or_else(locate::default_state_dir, PathBuf::from);
    findings.extend(kernel::check(Path::new("/proc"), &state_dir));
    findings.extend(sources::check(Path::new("/")));
    findings.extend(reach::check(global, hive).await);
    match global.output {
        Output::Json => {
            let all: Vec<serde_json::Value> = findings.iter().map(json).collect();
            terminal::put(format!("{:#}\n", serde_json::json!({ "checks": all })))?;
        }
        Output::Jsonl => {
            for finding in &findings {
                terminal::put(format!("{}\n", json(finding)))?;
            }
        }
        Output::Name => {
            for finding in findings.iter().filter(|finding| finding.grade != Grade::Ok) {
                terminal::put(format!("{}\n", finding.check))?;
            }
        }
        Output::Table | Output::Wide => {
            let colour = terminal::colourful(global.color);
            terminal::put(findings.iter().map(|finding| line(finding, colour)).collect::<String>())?;
        }
    }
    let broken = findings.iter().filter(|finding| finding.grade == Grade::Broken).count();
    match broken {
        0 => Ok(()),
        1 => Err(Failure::Failed("one thing is broken".to_owned())),
        many => Err(Failure::Failed(format!("{many} things are broken"))),
    }
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Ok => "ok",
        Grade::Reduced => "reduced",
        Grade::Broken => "broken",
    }
}

fn line(finding: &Finding, colour: bool) -> String {
    let tint = match finding.grade {
        Grade::Ok => Tint::Green,
        Grade::Reduced => Tint::Yellow,
        Grade::Broken => Tint::Red,
    };
    let grade = format!("{:<7}", word(finding.grade));
    let grade = if colour { tint.paint(&grade) } else { grade };
    let mend = finding.mend.as_ref().map_or(String::new(), |mend| format!("\n{:22}mend: {mend}", ""));
    format!("{grade}  {:<11}  {}{mend}\n", finding.check, terminal::plain(&finding.says))
}

fn json(finding: &Finding) -> serde_json::Value {
    serde_json::json!({
        "check": finding.check, "grade": word(finding.grade), "says": finding.says, "mend": finding.mend
    })
}
