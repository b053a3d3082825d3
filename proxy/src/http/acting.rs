//! Whether filters have a part in the requests of a route: found out once, as it is asked again for every request.

use std::cell::RefCell;
use std::sync::Arc;

use fairlead_model::route::{Route, VirtualHost};

use super::way::Way;

/// How many routes are remembered; each has one place.
const PLACES: usize = 64;

/// What is known of the routes that were taken last.
#[derive(Debug, Default)]
pub(crate) struct Acting(RefCell<Vec<Option<Known>>>);

/// What is known of a route, which nothing else takes the address of meanwhile.
#[derive(Debug)]
struct Known {
    route: Arc<Route>,
    host: Arc<VirtualHost>,
    cluster: Option<usize>,
    is_acting: bool,
}

impl Acting {
    /// What `find` says of a way, now or when it was asked of the same before.
    pub(super) fn of(&self, way: &Way, find: impl FnOnce() -> bool) -> bool {
        let mut places = self.0.borrow_mut();
        if places.is_empty() {
            places.resize_with(PLACES, || None);
        }
        let address = Arc::as_ptr(&way.route) as usize;
        let place = &mut places[(address / size_of::<Route>()) % PLACES];
        if let Some(known) = place
            && Arc::ptr_eq(&known.route, &way.route)
            && Arc::ptr_eq(&known.host, &way.host)
            && known.cluster == way.cluster
        {
            return known.is_acting;
        }
        let is_acting = find();
        *place = Some(Known {
            route: Arc::clone(&way.route),
            host: Arc::clone(&way.host),
            cluster: way.cluster,
            is_acting,
        });
        is_acting
    }
}
