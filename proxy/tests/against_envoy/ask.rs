//! Sends a request to a proxy, and notes what became of it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::generate::Asked;
use crate::upstream::{CASE, Headers, Seen, Upstreams, headers};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: u16,
    pub headers: Headers,
    pub body: String,
    pub tries: Vec<Seen>,
}

enum Sender {
    None,
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection to a proxy, made anew when it ended.
pub struct Caller {
    name: &'static str,
    proxy: SocketAddr,
    is_h2: bool,
    upstreams: Upstreams,
    sender: Sender,
}

impl Caller {
    pub fn new(name: &'static str, proxy: SocketAddr, is_h2: bool, upstreams: Upstreams) -> Self {
        Self {
            name,
            proxy,
            is_h2,
            upstreams,
            sender: Sender::None,
        }
    }

    async fn connect(&mut self) {
        let stream = async {
            loop {
                match TcpStream::connect(self.proxy).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let stream = tokio::time::timeout(PATIENCE, stream).await;
        let stream = stream.unwrap_or_else(|_| panic!("{} takes no connections", self.name));
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(stream);
        self.sender = if self.is_h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                .await
                .expect("HTTP/2");
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.expect("HTTP");
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
    }

    /// Sends a request.
    pub async fn ask(&mut self, index: usize, asked: &Asked) -> Outcome {
        let case = format!("{}-{index}", self.name);
        let is_ready = match &mut self.sender {
            Sender::None => false,
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        };
        if !is_ready {
            self.connect().await;
        }
        let target = match self.is_h2 {
            true => format!("http://{}{}", asked.host, asked.target),
            false => asked.target.clone(),
        };
        let mut request = Request::builder().method(asked.method).uri(target);
        if !self.is_h2 {
            request = request.header("host", &asked.host);
        }
        for (name, value) in &asked.headers {
            request = request.header(*name, *value);
        }
        let request = request
            .header(CASE, &case)
            .body(Full::from(asked.body))
            .expect("a request");
        let answer = async {
            let answer = match &mut self.sender {
                Sender::Http1(sender) => sender.send_request(request).await,
                Sender::Http2(sender) => sender.send_request(request).await,
                Sender::None => panic!("there is no connection"),
            };
            let (head, body) = answer?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>((head, body))
        };
        let answer = tokio::time::timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| panic!("{case}: {asked:?}: no answer"));
        let tries = self.upstreams.take(&case);
        match answer {
            Ok((head, body)) => Outcome {
                status: head.status.as_u16(),
                headers: headers(&head.headers),
                body: String::from_utf8_lossy(&body).into_owned(),
                tries,
            },
            Err(error) => Outcome {
                status: 0,
                headers: Headers::new(),
                body: format!("{error:?}"),
                tries,
            },
        }
    }
}
