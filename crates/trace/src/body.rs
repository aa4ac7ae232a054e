//! A body whose making goes on after its answer has begun, in the span of the call.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};

use crate::Span;

/// A body that is made in a span; the span ends with it.
#[derive(Debug)]
pub struct InSpan<B> {
    body: B,
    span: Span,
}

impl<B> InSpan<B> {
    /// `body` in `span`.
    #[must_use]
    pub const fn new(body: B, span: Span) -> Self {
        Self { body, span }
    }
}

impl<B: Body + Unpin> Body for InSpan<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let _in_span = self.span.context().clone().attach();
        Pin::new(&mut self.body).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
