//! What a worker sees of the hive's environment, and what its request adds.

use super::{StartError, c_text, field};
use std::collections::BTreeMap;

/// Kept even where the environment is cleared: without them few programs run as people expect.
const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// The service manager's words to the hive, and what the hive shows its queen: not meant for its workers.
const PRIVATE: [&str; 7] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "RBEE_TOKEN"];

/// Whether this can name a variable.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['=', '\0'])
}

/// The hive's own environment as far as it is handed on, with what the request adds.
pub fn of(request: &proto::StartWorkerRequest) -> Result<BTreeMap<String, String>, StartError> {
    let own = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    made(own.collect(), request)
}

fn made(
    own: BTreeMap<String, String>,
    request: &proto::StartWorkerRequest,
) -> Result<BTreeMap<String, String>, StartError> {
    let mut all = own;
    let kept = |key: &str| KEPT.contains(&key) || request.keep_env.iter().any(|name| name == key);
    all.retain(|key, _| !PRIVATE.contains(&key.as_str()) && (!request.clear_env || kept(key)));
    for (key, value) in &request.env {
        if !is_name(key) {
            return Err(field("env", format!("{key:?} cannot name a variable: it must not be empty or hold '='")));
        }
        c_text("env", value)?;
        all.insert(key.clone(), value.clone());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn own() -> BTreeMap<String, String> {
        let keys = ["PATH", "HOME", "LANG", "TZ", "TOKEN", "HF_HOME", "NOTIFY_SOCKET", "PATHS", "RBEE_TOKEN"];
        keys.into_iter().map(|key| (key.to_owned(), format!("own {key}"))).collect()
    }

    fn keys(request: &proto::StartWorkerRequest) -> Vec<String> {
        made(own(), request).unwrap().into_keys().collect()
    }

    #[test]
    fn the_environment_of_the_hive_is_handed_on_but_for_what_is_private() {
        let all = keys(&proto::StartWorkerRequest::default());
        assert_eq!(all, ["HF_HOME", "HOME", "LANG", "PATH", "PATHS", "TOKEN", "TZ"]);
    }

    #[test]
    fn a_cleared_environment_has_what_is_named_and_little_else() {
        let request = proto::StartWorkerRequest {
            clear_env: true,
            keep_env: vec!["HF_HOME".to_owned(), "NOTIFY_SOCKET".to_owned(), "NOWHERE".to_owned()],
            env: HashMap::from([("A".to_owned(), "b=c".to_owned()), ("TZ".to_owned(), "UTC".to_owned())]),
            ..Default::default()
        };
        assert_eq!(keys(&request), ["A", "HF_HOME", "HOME", "LANG", "PATH", "TZ"]);
        let all = made(own(), &request).unwrap();
        assert_eq!((all["A"].as_str(), all["TZ"].as_str(), all["HF_HOME"].as_str()), ("b=c", "UTC", "own HF_HOME"));
    }

    #[test]
    fn what_cannot_be_a_variable_is_refused() {
        for (key, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            let env = HashMap::from([(key.to_owned(), value.to_owned())]);
            let refused = made(own(), &proto::StartWorkerRequest { env, ..Default::default() });
            assert!(matches!(refused, Err(StartError::Field { field: "env", .. })), "{key:?}={value:?}");
        }
    }
}
