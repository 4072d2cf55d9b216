//! The test clock of `serve --dev`.

use std::{sync::Arc, time::Duration};

use tonic::{Request, Response, Status};

use super::{
    proto::dev::{self, test_clock_service_server::TestClockService},
    read,
    write::Writer,
};
use crate::sessions::Sessions;

const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Moves the clock of one core.
pub(super) struct TestClock {
    sessions: Arc<Sessions>,
    writer: Writer,
}

impl TestClock {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self {
            writer: Writer::new(&sessions),
            sessions,
        }
    }
}

#[tonic::async_trait]
impl TestClockService for TestClock {
    async fn advance(&self, request: Request<dev::AdvanceRequest>) -> Result<Response<dev::AdvanceResponse>, Status> {
        let duration = request.into_inner().duration.unwrap_or_default();
        let by = read::bounded("duration", &duration, Duration::from_nanos(1), LONGEST);
        let by = by.map_err(|error| error.into_status(&self.writer))?;
        self.sessions.advance(by).await;
        Ok(Response::new(dev::AdvanceResponse {
            server_time: Some(self.writer.timestamp(self.sessions.clock().now())),
        }))
    }
}
