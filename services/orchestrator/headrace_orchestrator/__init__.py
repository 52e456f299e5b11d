"""The orchestrator: pipelines, their runs, and the workers that run the steps.

Owns: pipelines, schedules, triggers, pipeline runs, leases of steps, what steps wrote.
Consumes: any event that a trigger names, such as monitor's RetrainRequested.
Emits: PipelineRegistered, ScheduleSet, ScheduleRemoved, ScheduleFired, TriggerSet, TriggerRemoved, TriggerSuppressed,
    PipelineRunStarted, StepLeased, StepCompleted, StepFailed, PipelineRunSucceeded, PipelineRunFailed,
    PipelineRunCancelled, PipelineRunResumed.
Guarantees: killed anywhere, a run continues; each attempt of a step has one outcome in the log; a nominal time of a
    schedule and an event of a trigger start one run each.
"""
