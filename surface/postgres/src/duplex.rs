//! One side of a proxied connection: a stream with a buffer each way, plain or TLS.

use std::{
    future::Future as _,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that may wait on one side before the other is no longer read.
pub(crate) const HIGH_WATER: usize = 256 * 1024;

/// Bytes asked for in one read.
const READ_SIZE: usize = 16 * 1024;

/// A connection, encrypted or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// A client that isn't there: reads end, writes go nowhere.
    Nobody,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::TlsServer(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::TlsClient(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Nobody => Poll::Pending,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::TlsServer(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::TlsClient(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Nobody => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::TlsServer(stream) => Pin::new(stream).poll_flush(context),
            Self::TlsClient(stream) => Pin::new(stream).poll_flush(context),
            Self::Nobody => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::TlsServer(stream) => Pin::new(stream).poll_shutdown(context),
            Self::TlsClient(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Nobody => Poll::Ready(Ok(())),
        }
    }
}

/// A stream with what was read and not yet understood, and what is to be written.
pub(crate) struct Duplex {
    stream: Stream,
    /// Read, not yet understood.
    pub(crate) input: BytesMut,
    /// To be written.
    pub(crate) output: BytesMut,
    /// Whether the other end stopped sending, or the stream broke.
    pub(crate) ended: bool,
    unflushed: bool,
}

impl Duplex {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new(), ended: false, unflushed: false }
    }

    /// The bare stream, for a TLS handshake. What was read ahead is an error of the other end, and dropped with it.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Reads what is there. Ready when something arrived or the stream ended.
    pub(crate) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Pending;
        }
        self.input.reserve(READ_SIZE);
        let read = pin!(self.stream.read_buf(&mut self.input));
        match ready!(read.poll(context)) {
            Ok(count) if count > 0 => {}
            Ok(_) | Err(_) => self.ended = true,
        }
        Poll::Ready(())
    }

    /// Writes what waits. Ready when nothing waits any more; an end that doesn't take it counts as ended.
    pub(crate) fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.output)) {
                Ok(written) if written > 0 => {
                    self.output.advance(written);
                    self.unflushed = !matches!(self.stream, Stream::Plain(_));
                }
                Ok(_) | Err(_) => {
                    self.ended = true;
                    self.output.clear();
                }
            }
        }
        if self.unflushed {
            let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
            self.unflushed = false;
            self.ended |= flushed.is_err();
        }
        Poll::Ready(())
    }

    /// Reads more, for the exchanges before a session's loop runs. `false`: the stream ended.
    pub(crate) async fn fill(&mut self) -> bool {
        std::future::poll_fn(|context| self.poll_fill(context)).await;
        !self.ended
    }

    /// Writes everything that waits.
    pub(crate) async fn drain(&mut self) {
        std::future::poll_fn(|context| self.poll_drain(context)).await;
    }
}
