//! Command lines, names and the configuration file.

use cli::settings;
use common::{HiveId, WorkerId, fit_name};
use hive::sample::engine::command_line;
use hive::worker::{command, model};

/// No word that a fuzzer would come upon.
const SECRET: &str = "q7Xw0vRtZk";
/// The longest command line that is shown, in bytes.
const SHOWN_MAX: usize = 4096;

fn arguments(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Escaped, masked and cut: at most 4 KiB, and no secret in it.
pub fn command_shown(bytes: &[u8]) {
    let given = command::escaped(&arguments(bytes));
    let shown = command::shown(&given);
    assert!(shown.len() <= given.len());
    let length: usize = shown.iter().map(|argument| argument.len() + 1).sum();
    assert!(length <= SHOWN_MAX, "{length}");
    assert_eq!(command::digest(&given), command::digest(&given.clone()));
    let text = given.join(" ");
    // One of the ways to hand a secret over at a time, by the first byte.
    let command = match bytes.first().copied().unwrap_or(0) % 7 {
        0 => vec!["w".to_owned(), "--api-key".to_owned(), SECRET.to_owned(), text.clone()],
        1 => vec!["w".to_owned(), format!("--password={SECRET}"), text.clone()],
        2 => vec![format!("HF_TOKEN={SECRET}"), text.clone()],
        3 => vec!["w".to_owned(), format!("http://me:{SECRET}@host/{text}")],
        4 => vec!["w".to_owned(), format!("Authorization: Bearer {SECRET} {text}")],
        5 => vec![text.clone(), format!("sk-{SECRET}")],
        _ => vec!["sh".to_owned(), "-c".to_owned(), format!("w --token {SECRET} {text}")],
    };
    let shown = command::shown(&command).concat();
    assert!(!shown.contains(SECRET) || text.contains(SECRET), "{command:?} is shown as {shown:?}");
}

/// What is read off a command line: models and engines.
pub fn command_read(bytes: &[u8]) {
    let given = command::escaped(&arguments(bytes));
    let names = model::names(&given, given.last().map(String::as_str));
    assert!(names.len() <= 8);
    for (at, name) in names.iter().enumerate() {
        assert!(!name.is_empty() && name.len() <= 256 && !names[..at].contains(name));
    }
    if let Some(guess) = command_line::guess(&given) {
        command_line::Guess::told(guess.engine, &given);
    }
}

/// Names of hives and workers: shown and read again they are the same, and each is one directory.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let fitted = fit_name(text);
    assert_eq!(HiveId::parse(&fitted).map(|id| id.to_string()).as_deref(), Ok(fitted.as_str()));
    if let Ok((hive, worker)) = WorkerId::parse(text) {
        assert_eq!(WorkerId::parse(&worker.to_string()), Ok((None, worker.clone())));
        assert_eq!(hive.map(|hive| format!("{hive}/{worker}")).unwrap_or(worker.to_string()), text);
        for part in [worker.group(), worker.instance()] {
            assert!(part.len() <= 64 && !part.contains(['/', '\0']) && !part.starts_with('.'));
            assert!(!part.starts_with("cgroup.") && !part.starts_with("memory."));
        }
    }
}

/// `hive.toml`: an error names a line that there is.
pub fn configuration(bytes: &[u8]) {
    match settings::parse(bytes) {
        Ok(file) => {
            for rule in &file.observe {
                assert!(rule.wish.check().is_ok(), "{rule:?}");
            }
        }
        Err(error) => {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&error.line()), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
