//! Which role each path needs. What is not named here needs the most: a method that somebody adds is closed until it
//! is thought about.

use std::fmt;

/// Who may call something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Everybody: whether the queen lives, and the files of the dashboard, which hold no data.
    Nobody,
    /// Whoever may look.
    Viewer,
    /// Whoever may start, stop, hold and read logs.
    Operator,
    /// The hive itself.
    Hive,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "no",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Hive => "hive",
        })
    }
}

/// What may be called by whoever may look. Logs are not here: engines print prompts and keys.
const LOOKING: [&str; 16] = [
    "rbee.v1.FleetService/Watch",
    "rbee.v1.FleetService/ListWorkers",
    "rbee.v1.FleetService/GetWorker",
    "rbee.v1.FleetService/ListHives",
    "rbee.v1.FleetService/GetHive",
    "rbee.v1.SchedulerService/FindIdleWorkers",
    "rbee.v1.SchedulerService/FindWorkersWithModel",
    "rbee.v1.SchedulerService/FindWorkersWithCapacity",
    "rbee.v1.SchedulerService/FindCapacity",
    "rbee.v1.SchedulerService/Explain",
    "rbee.v1.SchedulerService/ListReservations",
    "rbee.v1.WorkerService/GetWorker",
    "rbee.v1.WorkerService/ListWorkers",
    "rbee.v1.WorkerService/StreamEvents",
    "rbee.v1.WorkerService/DescribeHive",
    "rbee.v1.WorkerService/ListTemplates",
];
/// Services of which every method is for one role.
const WHOLE: [(&str, Need); 4] = [
    ("rbee.v1.HiveService", Need::Hive),
    ("grpc.health.v1.Health", Need::Nobody),
    ("grpc.reflection.v1.ServerReflection", Need::Viewer),
    ("grpc.reflection.v1alpha.ServerReflection", Need::Viewer),
];

/// What a path needs. `grpc`: the caller speaks gRPC, so that an unknown path is a method and no page.
pub fn need(path: &str, grpc: bool) -> Need {
    let method = path.trim_start_matches('/');
    let service = method.split('/').next().unwrap_or_default();
    if let Some((_, need)) = WHOLE.iter().find(|(name, _)| *name == service) {
        return *need;
    }
    if LOOKING.contains(&method) || method == "metrics" {
        return Need::Viewer;
    }
    if grpc || service.starts_with("rbee.") || service.starts_with("grpc.") { Need::Operator } else { Need::Nobody }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// What changes something, or shows what may be secret.
    const DOING: [&str; 12] = [
        "rbee.v1.FleetService/ForgetHive",
        "rbee.v1.SchedulerService/Reserve",
        "rbee.v1.SchedulerService/Renew",
        "rbee.v1.SchedulerService/Release",
        "rbee.v1.WorkerService/StartWorker",
        "rbee.v1.WorkerService/StopWorker",
        "rbee.v1.WorkerService/RestartWorker",
        "rbee.v1.WorkerService/ObserveWorker",
        "rbee.v1.WorkerService/UnobserveWorker",
        "rbee.v1.WorkerService/StreamLogs",
        "rbee.v1.WorkerService/DrainHive",
        "rbee.v1.GrantService/",
    ];

    #[test]
    fn every_method_of_the_contract_has_been_thought_about() {
        let all = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let mut seen = 0;
        for file in all.file.iter().filter(|file| file.package() == "rbee.v1") {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("rbee.v1.{}/{}", service.name(), method.name());
                    let doing = DOING.iter().any(|doing| name.starts_with(doing));
                    let hive = service.name() == "HiveService";
                    let looking = LOOKING.contains(&name.as_str());
                    assert_eq!(u8::from(doing) + u8::from(hive) + u8::from(looking), 1, "{name}");
                    let expected = if doing {
                        Need::Operator
                    } else if hive {
                        Need::Hive
                    } else {
                        Need::Viewer
                    };
                    assert_eq!(need(&format!("/{name}"), true), expected, "{name}");
                    assert_eq!(need(&format!("/{name}"), false), expected, "{name} without a content type");
                    seen += 1;
                }
            }
        }
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn what_nobody_thought_about_is_closed_and_pages_are_open() {
        for closed in
            ["/rbee.v1.FleetService/New", "/rbee.v2.FleetService/Watch", "/x.Y/Z", "//rbee.v1.WorkerService/X"]
        {
            assert_eq!(need(closed, true), Need::Operator, "{closed}");
        }
        assert_eq!(need("/rbee.v1.New/Watch", false), Need::Operator);
        assert_eq!(need("/rbee.v1.HiveService/%52egister", false), Need::Hive);
        for open in ["/", "/index.html", "/assets/rbee.js", "/healthz", "/grpc.health.v1.Health/Check"] {
            assert_eq!(need(open, false), Need::Nobody, "{open}");
        }
        assert_eq!(
            (need("/metrics", false), need("/grpc.reflection.v1.ServerReflection/X", true)),
            (Need::Viewer, Need::Viewer)
        );
    }
}
