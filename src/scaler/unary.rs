//! A gRPC method with one answer, made of a function.

use std::future::{Ready, ready};

use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

/// A function as a method.
pub(super) struct Unary<F>(pub(super) F);

impl<Asked, Answer, F> UnaryService<Asked> for Unary<F>
where
    F: FnMut(Asked) -> Result<Answer, Status>,
{
    type Response = Answer;
    type Future = Ready<Result<Response<Answer>, Status>>;

    fn call(&mut self, request: Request<Asked>) -> Self::Future {
        ready((self.0)(request.into_inner()).map(Response::new))
    }
}
