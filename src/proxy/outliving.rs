//! Streams that must not outlive their token (`on_expiry: close`): the request is cut off when its token is over.

use std::sync::Arc;

use http::HeaderValue;
use tokio::task::{self, AbortHandle};

use super::Route;
use super::admission::{Admission, Bearer};
use super::connection::Connection;
use super::route::Way;
use crate::credential::Kind;
use crate::exchange::Over;

/// Watches over one request for as long as it is held.
pub(super) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    /// Has the request that is being served by this very task end with its token.
    pub(super) fn start(
        admission: &Admission,
        route: &Arc<Route>,
        bearer: &Bearer,
        connection: &Arc<Connection>,
        id: Option<&HeaderValue>,
    ) -> Option<Self> {
        let request = task::try_id()?;
        let (admission, route, bearer, connection) = (admission.clone(), Arc::clone(route), bearer.clone(), Arc::clone(connection));
        let id = id.cloned();
        let watching = tokio::spawn(async move {
            let Some(over) = end_of(&admission, &route, &bearer).await else { return };
            let request_id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
            tracing::info!(request_id, route = %route.name, reason = over.as_str(), "cut off: the request's token is over (`on_expiry: close`)");
            admission.metrics.stream_ended(over.as_str());
            connection.cut(request);
        });
        Some(Self(watching.abort_handle()))
    }
}

async fn end_of(admission: &Admission, route: &Route, bearer: &Bearer) -> Option<Over> {
    match bearer {
        Bearer::Minted(granted) => Some(admission.exchange.end_of_minted(granted).await),
        Bearer::Presented(token) => {
            let Some(Way::Verify(verifier)) = route.access.way(Kind::Jwt) else { return None };
            Some(admission.exchange.end_of_presented(verifier, token).await)
        }
    }
}
