//! What watchers of the model wish for, in the queen's words and in the checkers'.

use super::Seen;
use crate::fleet::Mask;
use crate::fleet::feed::Wanted;
use proto::{Filter, Hive, ProcessStats, Worker, WorkerSpec};

/// How many there are.
pub const WISHES: usize = 10;

/// What there is to wish for; the queen's words for it. The last ones are told numbers in columns.
pub fn wanted(wish: usize) -> Wanted {
    let model = |model: &str| Some(Filter { model: model.into(), ..Filter::default() });
    let (plain, columns) = (plain(wish), plain(wish) != wish);
    let (filter, paths): (_, &[&str]) = match plain {
        0 => (None, &[]),
        1 => (model("a"), &[]),
        2 => (Some(Filter { state: 2, ..Filter::default() }), &[]),
        3 => (None, &["workers.state"]),
        4 => (model("b"), &["workers.stats.cpu_pct", "hives"]),
        _ => (Some(Filter { hive: "h1".into(), ..Filter::default() }), &["workers.spec.model", "beats"]),
    };
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    Wanted::new(filter, Mask::compile(&paths).unwrap(), columns)
}

/// The wish for the same without columns.
pub fn plain(wish: usize) -> usize {
    match wish {
        6 => 0,
        7 => 1,
        8 => 4,
        9 => 3,
        plain => plain,
    }
}

/// The same in the checkers' words.
pub fn lens(wish: usize, object: &Seen) -> Option<Seen> {
    let is = |worker: &Worker, model: &str| worker.spec.as_ref().unwrap().model.as_deref() == Some(model);
    let named = |worker: &Worker| {
        let spec = worker.spec.clone().unwrap();
        WorkerSpec { hive: spec.hive, group: spec.group, instance: spec.instance, ..WorkerSpec::default() }
    };
    let told = |worker: Worker| Some(Seen::Worker(Box::new(worker)));
    let wish = plain(wish);
    match object {
        Seen::Worker(worker) => match wish {
            1 if !is(worker, "a") => None,
            2 if worker.state != 2 => None,
            3 => told(Worker { spec: Some(named(worker)), state: worker.state, ..Worker::default() }),
            4 if !is(worker, "b") => None,
            4 => {
                let cpu_pct = worker.stats.as_ref().unwrap().cpu_pct;
                let stats = Some(ProcessStats { cpu_pct, ..ProcessStats::default() });
                told(Worker { spec: Some(named(worker)), stats, ..Worker::default() })
            }
            5 if worker.spec.as_ref().unwrap().hive != "h1" => None,
            5 => {
                let model = worker.spec.as_ref().unwrap().model.clone();
                told(Worker { spec: Some(WorkerSpec { model, ..named(worker) }), ..Worker::default() })
            }
            _ => Some(object.clone()),
        },
        Seen::Hive(hive) if wish == 5 && hive.id != "h1" => None,
        Seen::Hive(hive) if wish == 3 || wish == 5 => {
            Some(Seen::Hive(Box::new(Hive { id: hive.id.clone(), ..Hive::default() })))
        }
        Seen::Hive(_) => Some(object.clone()),
    }
}
