//! Dark traffic: copies of requests to another cluster. The live request neither waits for them nor fails with them, and nobody
//! gets their answers; those may be compared with the live ones.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use fairlead_model::filter::Overrides;
use fairlead_model::listener::HttpTimeouts;
use fairlead_model::route::{
    Action, Forward, HeaderChanges, Mirror, Route, RouteMatch, VirtualHost,
};
use http::HeaderValue;
use http_body::{Body, Frame};
use twox_hash::XxHash64;

use super::forward::{Call, dark};
use crate::body::Outgoing;
use crate::metrics::RouteFigures;

/// The seed of hashes of bodies: both sides have the same.
const SEED: u64 = 0;
/// How long a copy may take where the live request has all the time.
const LONGEST: Duration = Duration::from_secs(15);

/// The routes of copies, by the addresses of what they are made of, which they keep.
#[derive(Debug, Default)]
pub(crate) struct DarkRoutes(RefCell<HashMap<(usize, usize), Dark>>);

/// The way of copies.
#[derive(Debug, Clone)]
struct Dark {
    /// Of which route, and which of its mirrors.
    _live: Arc<Route>,
    route: Arc<Route>,
    host: Arc<VirtualHost>,
}

impl Dark {
    /// The name of the cluster, as the route has it.
    fn cluster(&self) -> &str {
        match &self.route.action {
            Action::Forward(forward) => forward.clusters.first().map_or("", |own| &own.name),
            _ => "",
        }
    }
}

impl DarkRoutes {
    fn of(&self, live: &Arc<Route>, place: usize, mirror: &Mirror, forward: &Forward) -> Dark {
        let key = (Arc::as_ptr(live) as usize, place);
        if let Some(known) = self.0.borrow().get(&key) {
            return known.clone();
        }
        let mut to = Forward::to(&mirror.cluster);
        to.timeouts = forward.timeouts.clone();
        to.timeouts.request.get_or_insert(LONGEST);
        let route = Route {
            name: live.name.clone(),
            matches: RouteMatch::default(),
            action: Action::Forward(Box::new(to)),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            filters: Overrides::new(),
        };
        let dark = Dark {
            _live: Arc::clone(live),
            route: Arc::new(route),
            host: Arc::default(),
        };
        self.0.borrow_mut().insert(key, dark.clone());
        dark
    }

    /// Forgets the routes of an old snapshot.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The copies of a request whose body is still on its way.
#[derive(Debug)]
pub(crate) struct Copies {
    calls: Vec<Copy>,
    body: VecDeque<Bytes>,
    length: usize,
}

/// A copy.
#[derive(Debug)]
struct Copy {
    call: Box<Call>,
    route: Arc<Route>,
    most: usize,
    figures: Arc<RouteFigures>,
    compared: Option<Rc<Compared>>,
}

/// Makes the copies that a request's route asks for, once it is as its endpoint will see it.
pub(super) fn copies(call: &mut Call, forward: &Forward) -> Option<Box<Copies>> {
    let mut calls = Vec::new();
    for (place, mirror) in forward.mirrors.iter().enumerate() {
        if !mirror.takes(&call.method, call.core.draw()) {
            continue;
        }
        let Some(host) = host(mirror, &call.host) else {
            continue;
        };
        let core = &call.core;
        let dark = core.dark.of(&call.route, place, mirror, forward);
        let figures = core.route_figures(&dark.route, dark.cluster());
        figures.mirrored.increment();
        let compared = mirror.compares.then(|| Compared::new(&figures));
        if let (Some(compared), None) = (&compared, &call.compared) {
            // Of several, the first is compared.
            call.compared = Some(Rc::clone(compared));
        }
        calls.push(Copy {
            call: Box::new(Call {
                route: Arc::clone(&dark.route),
                virtual_host: dark.host,
                host,
                ..call.again()
            }),
            route: dark.route,
            most: mirror.body_most,
            figures,
            compared,
        });
    }
    (!calls.is_empty()).then(|| {
        Box::new(Copies {
            calls,
            body: VecDeque::new(),
            length: 0,
        })
    })
}

fn host(mirror: &Mirror, host: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_str(&mirror.host(host.to_str().ok()?)).ok()
}

impl Copies {
    /// Notes what of the live body goes on its way; sends the copies once it has ended.
    pub(crate) fn note<E>(
        own: &mut Option<Box<Self>>,
        frame: &Poll<Option<Result<Frame<Bytes>, E>>>,
        has_ended: bool,
    ) {
        let Some(copies) = own else {
            return;
        };
        match frame {
            Poll::Pending => return,
            // The live request broke off.
            Poll::Ready(Some(Err(_))) => *own = None,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    copies.keep(data);
                }
            }
            Poll::Ready(None) => {}
        }
        if has_ended && let Some(copies) = own.take() {
            copies.send();
        }
    }

    fn keep(&mut self, data: &Bytes) {
        self.length += data.remaining();
        let length = self.length;
        self.calls.retain(|copy| {
            let is_short = length <= copy.most;
            if !is_short {
                copy.figures.mirror_dropped.increment();
            }
            is_short
        });
        match self.calls.is_empty() {
            true => self.body.clear(),
            false => self.body.push_back(data.clone()),
        }
    }

    /// Sends the copies.
    pub(super) fn send(self) {
        for copy in self.calls {
            let body = match self.body.is_empty() {
                true => Outgoing::Empty,
                false => Outgoing::Copied(self.body.clone()),
            };
            tokio::task::spawn_local(copy.send(body));
        }
    }
}

impl Copy {
    /// Sends the copy, and reads its answer to the end.
    async fn send(mut self, body: Outgoing) {
        let begun = self.call.core.clock.now();
        self.call.begun = begun;
        let Ok(response) = dark(self.call, body, &self.route, &HttpTimeouts::default()).await
        else {
            self.figures.mirror_failed.increment();
            return;
        };
        let (head, mut body) = response.into_parts();
        let mut hasher = XxHash64::with_seed(SEED);
        let frame = async |body: &mut super::answer::Answer| {
            std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
        };
        loop {
            match frame(&mut body).await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        hasher.write(data);
                    }
                }
                Some(Err(_)) => {
                    self.figures.mirror_failed.increment();
                    return;
                }
                None => break,
            }
        }
        if let Some(compared) = &self.compared {
            compared.whole(head.status.as_u16(), hasher.finish());
        }
    }
}

/// A live answer and the dark one beside it, until both are whole.
#[derive(Debug)]
pub(super) struct Compared {
    figures: Arc<RouteFigures>,
    hasher: RefCell<XxHash64>,
    known: RefCell<Option<(u16, u64)>>,
}

impl Compared {
    fn new(figures: &Arc<RouteFigures>) -> Rc<Self> {
        Rc::new(Self {
            figures: Arc::clone(figures),
            hasher: RefCell::new(XxHash64::with_seed(SEED)),
            known: RefCell::default(),
        })
    }

    /// A part of the live body.
    pub(super) fn live_part(&self, data: &[u8]) {
        self.hasher.borrow_mut().write(data);
    }

    /// The live answer is whole.
    pub(super) fn live(&self, status: u16) {
        let hash = self.hasher.borrow().finish();
        self.whole(status, hash);
    }

    fn whole(&self, status: u16, hash: u64) {
        let mut known = self.known.borrow_mut();
        let Some((other_status, other_hash)) = known.take() else {
            *known = Some((status, hash));
            return;
        };
        let figures = &self.figures;
        match status == other_status {
            true => figures.mirror_status_same.increment(),
            false => figures.mirror_status_different.increment(),
        }
        match hash == other_hash {
            true => figures.mirror_body_same.increment(),
            false => figures.mirror_body_different.increment(),
        }
    }
}
