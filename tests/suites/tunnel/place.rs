//! A queen and a hive with templates, and a client of the queen.

use harness::{Hive, Queen, Scene, eventually};
use proto::worker_service_client::WorkerServiceClient;
use proto::{StartWorkerRequest, StartWorkerResponse};
use std::path::PathBuf;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// Nothing here takes longer, unless it is broken.
pub const SOON: Duration = Duration::from_secs(30);

/// Writes as many lines as it is asked for, then waits.
const TALKER: &str = r#"
description = "talks"
command = ["sh", "-c", "i=0; while [ $i -lt $0 ]; do i=$((i+1)); echo line $i of a log that is long enough; done; exec sleep 1000", "{lines}"]
restart = "never"

[parameters.lines]
type = "integer"
min = 0
max = 1000000
default = 3
"#;

/// Ignores the polite signal.
const STUBBORN: &str = r#"
command = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"]
"#;

pub type Client = WorkerServiceClient<Channel>;

/// One test's machine.
pub struct Place {
    pub scene: Scene,
    pub queen: Queen,
    pub hive: Hive,
}

impl Place {
    pub async fn new() -> Self {
        let scene = Scene::new();
        let queen = scene.queen(&[]).await;
        let dir = templates(&scene);
        let hive = scene.hive(&["--template-dir", dir.to_str().unwrap()]).await;
        let place = Self { scene, queen, hive };
        place.attached().await;
        place
    }

    /// A client of the queen.
    pub async fn client(&self) -> Client {
        WorkerServiceClient::connect(self.scene.url()).await.unwrap()
    }

    /// Waits until the hive "box" can be called; how long that took.
    pub async fn attached(&self) -> Duration {
        let look = || async {
            let mut client = WorkerServiceClient::connect(self.scene.url()).await.ok()?;
            client.describe_hive(proto::DescribeHiveRequest { hive: "box".to_owned() }).await.ok()
        };
        eventually("the hive can be called", SOON, look).await.1
    }

    /// Starts a talker that writes so many lines.
    pub async fn talker(&self, instance: &str, lines: u32) -> Result<StartWorkerResponse, Status> {
        let request = StartWorkerRequest {
            hive: "box".to_owned(),
            template: "talker".to_owned(),
            instance: instance.to_owned(),
            parameters: [("lines".to_owned(), lines.to_string())].into(),
            ..StartWorkerRequest::default()
        };
        self.client().await.start_worker(request).await.map(tonic::Response::into_inner)
    }
}

/// A directory of templates beside the state.
pub fn templates(scene: &Scene) -> PathBuf {
    let dir = scene.dir().join("templates");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("talker.toml"), TALKER).unwrap();
    std::fs::write(dir.join("stubborn.toml"), STUBBORN).unwrap();
    std::fs::write(dir.join("broken.toml"), "comand = [\"x\"]\n").unwrap();
    dir
}
