//! `rbee release ID…`: gives reservations back.

use super::stop::side_by_side;
use crate::args::{Global, Output, Release};
use crate::failure::Failure;
use crate::show::json;
use crate::{connect, terminal};

/// Gives them back side by side; goes on when one fails. One that is gone already is no failure.
pub async fn run(global: &Global, args: &Release) -> Result<(), Failure> {
    side_by_side(&args.ids, "released", |id| {
        let global = global.clone();
        async move { release(&global, &id).await }
    })
    .await
}

async fn release(global: &Global, id: &str) -> Result<(), Failure> {
    let client = connect::scheduler(global).await?;
    let request = proto::ReleaseRequest { id: id.to_owned() };
    let asking = connect::asked_again(global.timeout, || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.release(request).await }
    });
    let look = "`rbee reservations` tells whether it is still held";
    let answer = connect::deed(global.timeout, &format!("release {id}"), look, asking).await?;
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "ReleaseResponse", &answer),
        Output::Name => terminal::put(format!("{id}\n")),
        Output::Table | Output::Wide => terminal::put(format!("{id}  {}\n", told(answer))),
    }
}

fn told(answer: proto::ReleaseResponse) -> String {
    match (answer.released, answer.in_use) {
        (0, 0) => "was held no more".to_owned(),
        (released, 0) => format!("released {released}"),
        (released, used) => format!("released {released}; {used} used by workers end with them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_told() {
        let told = |released, in_use| told(proto::ReleaseResponse { released, in_use });
        assert_eq!([told(0, 0), told(2, 0)], ["was held no more", "released 2"]);
        assert_eq!(told(1, 1), "released 1; 1 used by workers end with them");
    }
}
