//! A hive that reports by itself, until it is told to fall silent.

use crate::harness::{Running, Session, hive, row};
use proto::Batch;
use proto::push_telemetry_request::Frame;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Ends when it is dropped.
pub struct Heart {
    talking: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Heart {
    /// One worker, a frame every `period`.
    pub async fn start(queen: &Running, id: &str, period: Duration) -> Self {
        let mut session = Session::open(queen, hive(id)).await.unwrap();
        session.snapshot(vec![row(id, 1, 1.0)]).await;
        let (talking, mut hears) = watch::channel(true);
        let task = tokio::spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if hears.wait_for(|talking| *talking).await.is_err() {
                    return;
                }
                session.send(Frame::Batch(Batch::default())).await;
            }
        });
        Self { talking, task }
    }

    /// Falls silent with its stream open, or goes on.
    pub fn talk(&self, talking: bool) {
        self.talking.send_replace(talking);
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}
