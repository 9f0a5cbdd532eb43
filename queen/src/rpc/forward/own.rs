//! A hive speaks for itself alone: what it answers is about it, under names that can be. Its words go to people who take
//! them for the queen's.

use common::{HiveId, WorkerId};
use proto::{LifeEvent, Worker};
use tonic::Status;

/// An answer of a hive.
pub trait Own {
    /// Puts the hive's own name where it names one.
    ///
    /// # Errors
    /// INTERNAL when it names a worker as none can be called.
    fn own(&mut self, hive: &HiveId) -> Result<(), Status>;
}

/// These name nobody.
macro_rules! nameless {
    ($($answer:ty),*) => {
        $(impl Own for $answer {
            fn own(&mut self, _: &HiveId) -> Result<(), Status> {
                Ok(())
            }
        })*
    };
}

nameless!(proto::StopWorkerResponse, proto::DrainHiveResponse, proto::ListTemplatesResponse, proto::StreamLogsResponse);

impl Own for Worker {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        let Some(spec) = &mut self.spec else { return Ok(()) };
        hive.as_str().clone_into(&mut spec.hive);
        check(hive, &spec.group, &spec.instance)
    }
}

impl Own for LifeEvent {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        hive.as_str().clone_into(&mut self.hive);
        // One about a GPU or the hive names no worker.
        if self.group.is_empty() && self.instance.is_empty() {
            return Ok(());
        }
        check(hive, &self.group, &self.instance)
    }
}

impl<T: Own> Own for Option<T> {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        self.as_mut().map_or(Ok(()), |inner| inner.own(hive))
    }
}

impl Own for proto::StartWorkerResponse {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        self.worker.own(hive)
    }
}

impl Own for proto::RestartWorkerResponse {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        self.worker.own(hive)
    }
}

impl Own for proto::WorkerServiceGetWorkerResponse {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        self.worker.own(hive)
    }
}

impl Own for proto::WorkerServiceListWorkersResponse {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        self.workers.iter_mut().try_for_each(|worker| worker.own(hive))
    }
}

impl Own for proto::DescribeHiveResponse {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        if let Some(record) = &mut self.hive {
            hive.as_str().clone_into(&mut record.id);
        }
        Ok(())
    }
}

impl Own for proto::StreamEventsResponse {
    fn own(&mut self, hive: &HiveId) -> Result<(), Status> {
        self.event.own(hive)
    }
}

fn check(hive: &HiveId, group: &str, instance: &str) -> Result<(), Status> {
    let wrong = |error| Status::internal(format!("hive {hive} names a worker as none can be called: {error}"));
    WorkerId::new(group, instance).map(drop).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::WorkerSpec;
    use tonic::Code;

    #[test]
    fn b5_a_hive_answers_and_tells_under_its_own_name_alone() {
        let hive = HiveId::parse("gpu-9").unwrap();
        let worker = |group: &str| {
            let spec =
                WorkerSpec { hive: "gpu-1".into(), group: group.into(), instance: "1".into(), ..Default::default() };
            Worker { spec: Some(spec), ..Worker::default() }
        };
        let mut start = proto::StartWorkerResponse { worker: Some(worker("llm")), ..Default::default() };
        start.own(&hive).unwrap();
        assert_eq!(start.worker.unwrap().spec.unwrap().hive, "gpu-9");
        let mut list = proto::WorkerServiceListWorkersResponse { workers: vec![worker("llm"), worker("\u{1b}[2J")] };
        let refused = list.own(&hive).unwrap_err();
        assert_eq!(refused.code(), Code::Internal);
        assert!(!refused.message().contains('\u{1b}'), "{refused:?}");
        let event = |group: &str| LifeEvent { hive: "gpu-1".into(), group: group.into(), ..Default::default() };
        let mut about_itself = proto::StreamEventsResponse { event: Some(event("")), ..Default::default() };
        about_itself.own(&hive).unwrap();
        assert_eq!(about_itself.event.unwrap().hive, "gpu-9");
        assert_eq!(event("llm").own(&hive).unwrap_err().code(), Code::Internal, "no instance");
    }
}
