HANDOFF = """
INSERT INTO handoff_tickets
    (project_id, id, number, milestone_id, source, title, description, request_type, priority, blocking, status, stage,
    merge_sha, deployed_at, reported_by_user_id, actor_role, actor_id, created_at, updated_at, search_terms)
SELECT %(project)s, md5(n::text)::uuid, n, CASE WHEN n %% 4 = 0 THEN md5((n / 50000)::text)::uuid END, 'portal',
    'Laptop ' || n, repeat('It stays dark after lunch. ', 6), (ARRAY['bug', 'feature_request'])[1 + n %% 2],
    -- No priority is high.
    (ARRAY['low', 'medium'])[1 + n %% 2], n %% 7 = 0, status, CASE status WHEN 'open' THEN 'backlog' ELSE 'live' END,
    CASE WHEN n %% 3 = 0 AND status = 'closed' THEN md5(n::text) END,
    CASE WHEN n %% 3 = 0 AND status = 'closed' AND n %% 50000 <> 3 THEN at END, cast(%(user)s AS uuid), 'user', 'seed', at,
    at + least(n::bigint * 7919 %% %(tickets)s, %(tickets)s - n) * interval '1 second', {terms}
FROM generate_series(1, %(tickets)s) AS n,
    LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + (n - %(tickets)s) * interval '1 minute' AS at) AS _,
    LATERAL (SELECT CASE WHEN n > %(tickets)s * 0.95 AND n %% 2 = 0 OR n %% 1000 = 17 THEN 'open' ELSE 'closed' END
        AS status) AS __
"""
ROLES = """
INSERT INTO handoff_roles (project_id, ticket_id, id, position, role, assignee_user_id, created_at, updated_at)
SELECT project_id, id, md5('role' || number)::uuid, 1, CASE WHEN number %% 50000 = 1 THEN 'qa' ELSE 'backend' END,
    CASE WHEN number %% 1000 = 0 THEN cast(%(user)s AS uuid) END, created_at, created_at
FROM handoff_tickets WHERE project_id = %(project)s
"""
