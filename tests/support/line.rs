//! A line between two processes that can be made bad: a TCP proxy that loses, delays, repeats, swaps or holds back bytes,
//! or hangs up.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are carried at once.
const PIECE: usize = 4096;

/// What a line does with the bytes it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// All of them, in order.
    Everything,
    /// None: they vanish without a word.
    Nothing,
    /// All of them, each piece this much later.
    Late(Duration),
    /// Each piece twice.
    Twice,
    /// The two halves of each piece in the wrong order.
    Swapped,
    /// It reads none.
    Unread,
    /// It hangs up, and takes no new connection.
    HangsUp,
}

/// A line to one process.
pub(crate) struct Line {
    /// Where it begins.
    pub(crate) addr: SocketAddr,
    carries: watch::Sender<Carries>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A good line to `to`, where somebody may or may not listen.
    pub(crate) async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (carries, state) = watch::channel(Carries::Everything);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                // Whoever calls a line that hangs up hears that it does.
                if *state.borrow() != Carries::HangsUp {
                    connections.spawn(connection(near, to, state.clone()));
                }
            }
        });
        Self { addr, carries, _tasks: tasks }
    }

    /// From now on it does this with what it is given, on open connections too.
    pub(crate) fn carry(&self, what: Carries) {
        self.carries.send_replace(what);
    }
}

async fn connection(near: TcpStream, to: SocketAddr, state: watch::Receiver<Carries>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_out, near_in), (far_out, far_in)) = (near.into_split(), far.into_split());
    let mut hung_up = state.clone();
    tokio::select! {
        () = carry(near_out, far_in, state.clone()) => {}
        () = carry(far_out, near_in, state) => {}
        _ = hung_up.wait_for(|carries| *carries == Carries::HangsUp) => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Carries>) {
    let mut piece = vec![0; PIECE];
    loop {
        if state.wait_for(|carries| *carries != Carries::Unread).await.is_err() {
            return;
        }
        let Ok(count @ 1..) = from.read(&mut piece).await else { return };
        let bytes = &mut piece[..count];
        let carries = *state.borrow();
        let sent = match carries {
            Carries::Nothing => Ok(()),
            Carries::Twice => to.write_all(&[&*bytes, &*bytes].concat()).await,
            Carries::Swapped => {
                bytes.rotate_left(count / 2);
                to.write_all(bytes).await
            }
            Carries::Late(by) => {
                tokio::time::sleep(by).await;
                to.write_all(bytes).await
            }
            Carries::Everything | Carries::Unread | Carries::HangsUp => to.write_all(bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
