//! Reads services from the server: from our own service where it is offered, else in the current dialect.

use flowctl_proto::flowctl::registry::v1::{GetServiceRequest, ListServicesRequest};
use flowctl_proto::flowctl::v1::{ComponentStatusRequest, ListComponentsRequest};
use tonic::Code;

use crate::dial::Server;
use crate::failure::Failure;
use crate::view::ServiceView;

/// All services, sorted by id.
pub(crate) async fn list(server: &Server) -> Result<Vec<ServiceView>, Failure> {
    const DOING: &str = "list services";
    let mut services = Vec::new();
    let mut request = ListServicesRequest::default();
    loop {
        match server.registry().list_services(request.clone()).await {
            Ok(page) => {
                let page = page.into_inner();
                services.extend(page.services.into_iter().map(ServiceView::from_registry));
                if page.next_page_token.is_empty() {
                    return Ok(services);
                }
                request.page_token = page.next_page_token;
            }
            Err(status) if status.code() == Code::Unimplemented => break,
            Err(status) => return Err(server.failure(DOING, status)),
        }
    }
    let request = ListComponentsRequest {
        include_unhealthy: true,
        ..Default::default()
    };
    let answer = server.v1().list_components(request).await;
    let answer = answer.map_err(|status| server.failure(DOING, status))?.into_inner();
    services.extend(answer.components.into_iter().map(ServiceView::from_v1));
    services.sort_by(|a, b| a.service_id.cmp(&b.service_id));
    Ok(services)
}

/// One service.
pub(crate) async fn get(server: &Server, id: &str) -> Result<ServiceView, Failure> {
    const DOING: &str = "read a service";
    let service_id = id.to_owned();
    match server.registry().get_service(GetServiceRequest { service_id }).await {
        Ok(service) => return Ok(ServiceView::from_registry(service.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => {}
        Err(status) => return Err(server.failure(DOING, status)),
    }
    let service_id = id.to_owned();
    let answer = server
        .v1()
        .get_component_status(ComponentStatusRequest { service_id })
        .await;
    let answer = answer.map_err(|status| server.failure(DOING, status))?;
    let mut view = ServiceView::from_v1(answer.into_inner());
    id.clone_into(&mut view.service_id);
    Ok(view)
}
