//! Live traffic beside what goes wrong: it is not to notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long an answer may take at the most, beside what the machine let anybody wait for a processor.
const LONGEST: Duration = Duration::from_millis(700);

/// How long somebody on this machine waited for a processor since it started; nothing where the kernel does not count it.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = text.lines().next().and_then(|line| line.rsplit('=').next());
    Duration::from_micros(total.and_then(|own| own.parse().ok()).unwrap_or(0))
}

/// Requests on one connection, one after the other, on a thread of their own.
pub struct Live {
    is_over: Arc<AtomicBool>,
    /// How many there were; and of the longest how long it took, without what the machine let anybody wait meanwhile.
    asking: JoinHandle<(usize, Duration)>,
}

impl Live {
    /// Asks for a path again and again.
    pub fn start(address: SocketAddr, path: &'static str) -> Self {
        Self::to(address, "shop.example".to_owned(), path)
    }

    /// The same, of this host.
    pub fn to(address: SocketAddr, host: String, path: &'static str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        // What the test itself does on its thread is not to count.
        let asking = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(ask(address, &host, path, &told))
        });
        Self { is_over, asking }
    }

    /// Ends it; every request was answered, and in time.
    pub async fn went_well(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (count, longest) = self.asking.await.expect("it asks");
        assert!(count > 10, "{count} requests only");
        assert!(longest < LONGEST, "{longest:?} of {count} requests");
    }
}

async fn ask(
    address: SocketAddr,
    host: &str,
    path: &str,
    is_over: &AtomicBool,
) -> (usize, Duration) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) || count <= 10 {
        let request = Request::get(path)
            .header("host", host)
            .body(Full::<Bytes>::default())
            .expect("a request");
        let (begun, before) = (Instant::now(), waited());
        sender.ready().await.expect("a connection");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.into_body().collect().await.expect("a body");
        let took = begun.elapsed().saturating_sub(waited() - before);
        longest = longest.max(took);
        count += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (count, longest)
}
