//! Counts the calls that run in a tunnel, from their request to the last byte of their answer.

use http::{Request, Response};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tonic::body::Body;
use tower::{Layer, Service};

/// The calls of one tunnel. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Calls(watch::Sender<Count>);

#[derive(Debug, Default)]
struct Count {
    open: u32,
    began: u64,
}

/// One call, as long as it runs.
#[derive(Debug)]
struct Call(watch::Sender<Count>);

impl Calls {
    fn begin(&self) -> Call {
        self.0.send_modify(|count| (count.open, count.began) = (count.open + 1, count.began + 1));
        Call(self.0.clone())
    }

    /// Waits until there has been a call, and then none for so long.
    pub async fn idle(&self, limit: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // The sender is ours: it cannot be gone.
            let _ = count.wait_for(|count| count.began > 0 && count.open == 0).await;
            if tokio::time::timeout(limit, count.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|count| count.open -= 1);
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, calls: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    calls: Calls,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (call, answering) = (self.calls.begin(), self.inner.call(request));
        Box::pin(async move {
            let answer = answering.await?;
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _runs = &call;
                    frame
                }))
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_idle_only_after_its_last_call() {
        let calls = Calls::default();
        let began = tokio::time::Instant::now();
        let idle = calls.clone();
        let idle = tokio::spawn(async move { idle.idle(LIMIT).await });
        tokio::time::sleep(LIMIT * 9).await;
        assert!(!idle.is_finished(), "a tunnel that was never used is fresh, not idle");
        let first = calls.begin();
        tokio::time::sleep(Duration::from_secs(100)).await;
        let second = calls.begin();
        drop(first);
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(second);
        tokio::time::sleep(Duration::from_secs(50)).await;
        drop(calls.begin());
        assert!(!idle.is_finished());
        idle.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 850);
    }
}
