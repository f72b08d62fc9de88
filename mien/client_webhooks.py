"""The part of the client that is about being told: webhooks and their deliveries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mien import wire_webhooks as wire
from mien.transport import Transport, path_part


class ClientWebhooks(Transport):
    """Webhooks: register, list, change, delete; their deliveries."""

    def create_webhook(
        self, url: str, *, events: Sequence[str] | None = None, secret: str | None = None
    ) -> wire.WebhookWithSecret:
        """Register an address to be told of the end of jobs; the answer holds the secret, this once.

        Raises:
            UnprocessableError: ``bad_webhook_url``, ``webhook_address_refused``, ``bad_webhook_secret``.
            ConflictError: ``too_many_webhooks``.
        """
        body = {"url": url, "events": None if events is None else list(events), "secret": secret}
        sent = {name: value for name, value in body.items() if value is not None}
        return self._read(wire.WebhookWithSecret, self._ask("POST", "/webhooks", json=sent))

    def webhooks(self) -> list[wire.Webhook]:
        """The owner's webhooks."""
        return self._read(wire.WebhookList, self._ask("GET", "/webhooks")).items

    def webhook(self, webhook_id: str) -> wire.Webhook:
        """One webhook."""
        return self._read(wire.Webhook, self._ask("GET", f"/webhooks/{path_part(webhook_id)}"))

    def change_webhook(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> wire.Webhook:
        """Change what is given; enabling takes up what was held."""
        body = {"url": url, "events": None if events is None else list(events), "enabled": enabled}
        sent = {name: value for name, value in body.items() if value is not None}
        return self._read(wire.Webhook, self._ask("PATCH", f"/webhooks/{path_part(webhook_id)}", json=sent))

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook with its deliveries."""
        self._ask("DELETE", f"/webhooks/{path_part(webhook_id)}")

    def rotate_webhook_secret(self, webhook_id: str, *, secret: str | None = None) -> wire.WebhookWithSecret:
        """Make a new secret; the old one signs along for a day."""
        body = {} if secret is None else {"secret": secret}
        answer = self._ask("POST", f"/webhooks/{path_part(webhook_id)}/secret", json=body)
        return self._read(wire.WebhookWithSecret, answer)

    def deliveries(self, webhook_id: str) -> Iterator[wire.Delivery]:
        """The deliveries of a webhook, newest first."""
        for page in self._pages(wire.DeliveryPage, f"/webhooks/{path_part(webhook_id)}/deliveries", {"limit": 100}):
            yield from page.items

    def send_again(self, webhook_id: str, delivery_id: str) -> wire.Delivery:
        """Send a delivery once more, with all its retries.

        Raises:
            ConflictError: ``webhook_disabled``.
        """
        path = f"/webhooks/{path_part(webhook_id)}/deliveries/{path_part(delivery_id)}/send"
        return self._read(wire.Delivery, self._ask("POST", path))
