//! Which worker somebody means: any run of whole parts of `hive/group/instance` that names exactly one.

use crate::failure::Failure;

/// So many candidates are named when a name fits several workers.
const NAMED_MAX: usize = 5;

/// hive/group/instance.
pub fn full(worker: &proto::Worker) -> String {
    let empty = proto::WorkerSpec::default();
    let spec = worker.spec.as_ref().unwrap_or(&empty);
    format!("{}/{}/{}", spec.hive, spec.group, spec.instance)
}

/// Whether `wish` is a run of whole parts of `name`.
pub fn fits(wish: &str, name: &str) -> bool {
    let wish: Vec<&str> = wish.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    name.windows(wish.len()).any(|run| run == wish)
}

/// The one worker that `wish` names.
///
/// # Errors
/// `Nothing` when none fits, `Usage` when several do; both say what to do.
pub fn unique<'a>(wish: &str, workers: &'a [proto::Worker]) -> Result<&'a proto::Worker, Failure> {
    let fitting: Vec<&proto::Worker> = workers.iter().filter(|worker| fits(wish, &full(worker))).collect();
    match fitting.as_slice() {
        [] => Err(Failure::Nothing(format!("no worker is called {wish:?}; `rbee ps` lists them"))),
        [one] => Ok(one),
        several => {
            let mut names: Vec<String> = several.iter().take(NAMED_MAX).map(|worker| full(worker)).collect();
            if several.len() > NAMED_MAX {
                names.push(format!("{} more", several.len() - NAMED_MAX));
            }
            Err(Failure::Usage(format!("{wish:?} fits several workers, say more of the name: {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(names: &[&str]) -> Vec<proto::Worker> {
        let worker = |name: &&str| {
            let parts: Vec<String> = name.split('/').map(str::to_owned).collect();
            let spec = proto::WorkerSpec {
                hive: parts[0].clone(),
                group: parts[1].clone(),
                instance: parts[2].clone(),
                ..Default::default()
            };
            proto::Worker { spec: Some(spec), ..Default::default() }
        };
        names.iter().map(worker).collect()
    }

    #[test]
    fn any_run_of_whole_parts_will_do() {
        for wish in ["box/llm/8080", "llm/8080", "box/llm", "8080", "llm", "box"] {
            assert!(fits(wish, "box/llm/8080"), "{wish}");
        }
        for wish in ["box/8080", "808", "lm/8080", "", "/8080", "box/llm/8080/x"] {
            assert!(!fits(wish, "box/llm/8080"), "{wish}");
        }
    }

    #[test]
    fn a_name_must_mean_one_worker() {
        let fleet = workers(&["a/llm/8080", "a/llm/8081", "b/llm/8080"]);
        assert_eq!(full(unique("8081", &fleet).unwrap()), "a/llm/8081");
        assert_eq!(full(unique("b", &fleet).unwrap()), "b/llm/8080");
        let several = unique("8080", &fleet).unwrap_err();
        assert!(matches!(&several, Failure::Usage(words) if words.contains("a/llm/8080, b/llm/8080")), "{several}");
        assert!(matches!(unique("8082", &fleet), Err(Failure::Nothing(_))));
    }
}
