"""What every headrace service stands on: event store, log, consumers, objects, RPC chassis, settings, testing.

A service is four small files around its domain. With the registry as the example, ``config.py`` adds settings::

    class RegistrySettings(StoreSettings):
        approvals_needed: int = Field(default=1, ge=1, description="People who approve a promotion.")

``app.py`` wires; ``LogOwner`` brings database, event store, sequencer, relay, object store and the log's own service::

    async def build(settings: RegistrySettings) -> Application:
        owner = await LogOwner.open("registry", settings, EVENT_TYPES)
        rollbacks = RollbackHandler(owner.store, RolloutServiceStub(owner.peer("serving")))
        owner.consume("registry.rollback", ["monitor"], {RollbackRequested: rollbacks.handle})
        servicer = RegistryServicer(owner.store, ModelStore(owner.database), owner.objects)
        return owner.application([(add_RegistryServiceServicer_to_server, servicer)])

``__main__.py`` runs it::

    settings = load(RegistrySettings)
    run_service("registry", settings, lambda: build(settings))

``rpc.py`` checks, commands and answers; errors of the kit's tree become a status with google.rpc details::

    class RegistryServicer(RegistryServiceServicer):
        async def CreateModel(self, request, context):
            MODEL_NAME.parse(request.name, field="name")
            require_text(request.description, field="description", least=0, most=10_000, lines=True)
            return await self._store.execute(
                MODEL,
                request.name,
                context=command_context(request.command_id),   # who, when, and what caused it
                request=request,
                decide=lambda model: domain.decide_create(model, request),
                respond=lambda model: CreateModelResponse(model=model),
            )

        async def ListModels(self, request, context):
            page = page_of(request)
            models = await self._models.list_models(request.parent, after=page.after, limit=page.limit)
            token = page.token(models[-1].name, count=len(models)) if models else ""
            return ListModelsResponse(models=models, next_page_token=token)

``handlers.py`` answers events of others; a repeat has no effect, since the command's id derives from the event's::

    class RollbackHandler:
        async def handle(self, event: ReceivedEvent) -> None:
            context = CommandContext.caused_by(event, "registry.rollback", datetime.now(UTC))
            await self._store.execute(MODEL, event.message.model, context=context, ...)
            with causing(context):                             # a call to another service names the same cause
                await self._serving.AbortRollout(AbortRolloutRequest(command_id=str(context.command_id), ...))
"""

from headrace_kit.lean import import_structlog

import_structlog()
