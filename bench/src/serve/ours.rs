//! rbee: the real queen.

use queen::{Config, Queen};
use tokio_util::sync::CancellationToken;

pub async fn serve() {
    crate::child::raise_open_files();
    let listen = std::env::var("BENCH_LISTEN").unwrap_or_else(|_| "127.0.0.1:0".into());
    let config = Config { listen: listen.parse().expect("an address"), ..Config::default() };
    let queen = Queen::bind(config).await.expect("a queen");
    println!("{}", queen.address());
    queen.run(CancellationToken::new()).await.expect("the queen runs");
}
