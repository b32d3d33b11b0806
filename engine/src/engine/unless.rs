//! Operations that can be cancelled.

use super::{
    Engine, ModelSource,
    reports::{FreeReport, LoadReport, RequestReport, ResidentReport},
    request::Visitor,
};
use crate::{Cancellation, Error, MemoryRequest, cancellation::Stop, transfer::Contents};

/// An engine whose operations end early when a [`Cancellation`] says so; made by [`Engine::unless`].
#[derive(Clone, Copy, Debug)]
pub struct Unless<'a> {
    engine: &'a Engine,
    cancellation: &'a Cancellation,
}

impl Engine {
    /// The same operations, each until it is done or `cancellation` is cancelled:
    /// `engine.unless(&cancellation).free_memory(None, request)`.
    ///
    /// Beside what the plain ones fail with, they fail with [`Error::Cancelled`], or an error caused by it, and leave the
    /// old or the new state (E38).
    #[must_use]
    pub fn unless<'a>(&'a self, cancellation: &'a Cancellation) -> Unless<'a> {
        Unless {
            engine: self,
            cancellation,
        }
    }
}

impl Unless<'_> {
    fn stop(self, operation: &'static str) -> Stop {
        Stop::new(self.cancellation, operation)
    }

    /// [`Engine::load`]. No model is there when it was cancelled.
    ///
    /// # Errors
    /// As there, and cancelled.
    pub fn load(self, name: &str, source: ModelSource) -> Result<LoadReport, Error> {
        self.engine.load_model(&self.stop("the load"), name, source)
    }

    /// [`Engine::request`]. A visitor that runs is not disturbed; it may look at the cancellation itself.
    ///
    /// # Errors
    /// As there, and cancelled.
    pub fn request(
        self,
        name: &str,
        workspace_bytes: u64,
        visit: &mut Visitor<'_>,
    ) -> Result<RequestReport, Error> {
        let stop = self.stop("the request");
        self.engine.serve(&stop, name, workspace_bytes, visit)
    }

    /// [`Engine::make_resident`].
    ///
    /// # Errors
    /// As there, and cancelled.
    pub fn make_resident(self, name: &str) -> Result<ResidentReport, Error> {
        let stop = self.stop("making resident");
        self.engine.bring_model(&stop, name)
    }

    /// [`Engine::free_memory`]. What had left before it was cancelled stays away, and is told by [`Error::FreedLess`].
    ///
    /// # Errors
    /// As there, and cancelled.
    pub fn free_memory(
        self,
        model: Option<&str>,
        request: MemoryRequest,
    ) -> Result<FreeReport, Error> {
        let stop = self.stop("freeing memory");
        self.engine.free(&stop, model, request)
    }

    /// [`Engine::write_tensor`]. A write that has begun goes through where only the device has the old bytes.
    ///
    /// # Errors
    /// As there, and cancelled.
    pub fn write_tensor(
        self,
        name: &str,
        tensor: &str,
        contents: &mut Contents<'_>,
    ) -> Result<(), Error> {
        let stop = self.stop("the write");
        self.engine.write(&stop, name, tensor, contents)
    }

    /// [`Engine::drop_model`]. The model is whole when it was cancelled.
    ///
    /// # Errors
    /// As there, and cancelled.
    pub fn drop_model(self, name: &str) -> Result<(), Error> {
        self.engine.forget(&self.stop("the drop"), name)
    }
}
