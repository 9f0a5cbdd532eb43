//! The one filter of every call, over a worker's spec and state. Pure.

use super::Spec;
use proto::Filter;

/// Whether a worker matches: all fields that are set must.
pub fn matches(filter: &Filter, spec: &Spec, state: i32) -> bool {
    let text = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
    text(&filter.hive, spec.hive())
        && text(&filter.group, spec.group())
        && text(&filter.instance, spec.instance())
        && (filter.model.is_empty() || spec.models().any(|name| name == filter.model))
        && filter.labels.iter().all(|(key, value)| spec.label(key) == Some(value.as_str()))
        && (filter.state == 0 || filter.state == state)
}

/// Whether a hive is of interest: only the filter's hive field speaks of hives.
pub fn matches_hive(filter: &Filter, id: &str) -> bool {
    filter.hive.is_empty() || filter.hive == id
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::WorkerSpec;

    #[test]
    fn all_fields_that_are_set_must_match() {
        let spec = Spec::of(&WorkerSpec {
            hive: "box".into(),
            group: "llm".into(),
            model: Some("a".into()),
            model_names: vec!["b".into()],
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
            ..WorkerSpec::default()
        });
        let with = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            matches(&filter, &spec, 2)
        };
        assert!(with(|_| {}));
        assert!(with(|f| f.model = "b".into()) && with(|f| f.model = "a".into()) && !with(|f| f.model = "B".into()));
        assert!(with(|f| f.state = 2) && !with(|f| f.state = 3));
        assert!(!with(|f| f.hive = "bo".into()));
        assert!(with(|f| drop(f.labels.insert("tier".into(), "gold".into()))));
        assert!(!with(|f| drop(f.labels.insert("tier".into(), "tin".into()))));
    }
}
