//! Listening for KEDA.

use std::future::Future;

use super::KedaScaler;
use super::connection;
use crate::transport::{Http2Settings, Port, serve_grpc_while};

/// Serves until `shutdown` resolves. Open streams and connections then end, at the latest after a second.
pub async fn serve(port: Port, service: KedaScaler, shutdown: impl Future<Output = ()>) {
    let ends = {
        let service = service.clone();
        move || connection::ends(service.clone())
    };
    let closing = {
        let service = service.clone();
        async move {
            shutdown.await;
            service.close();
        }
    };
    let serving = serve_grpc_while(
        port,
        Http2Settings::default(),
        service.clone(),
        (ends, connection::GOODBYE),
        closing,
    );
    let remembering = async {
        service.remember().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        () = remembering => {}
    }
}
