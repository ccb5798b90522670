HELPDESK = """
INSERT INTO helpdesk_tickets
    (tenant_id, id, app_id, number, title, description, type, status, priority, category, submitted_by_id,
    assigned_to_id, team_id, tags, tag_terms, source, source_type, created_at, created_by, updated_at, updated_by,
    due_at, related_asset_id, related_vulnerability_id, search_terms)
SELECT %(tenant)s, 'tkt_' || lpad(n::text, 26, '0'), 'app_' || nullif(n %% 5, 0), n, 'Laptop ' || n,
    repeat('It stays dark after lunch. ', 6), CASE WHEN n %% 4 = 0 THEN 'service_request' ELSE 'incident' END, status,
    -- What is open is never urgent, and what is old is closed.
    CASE WHEN n %% 10 = 0 AND status = 'closed' THEN 'urgent' WHEN n %% 3 = 0 THEN 'low' ELSE 'medium' END,
    CASE WHEN n %% 50000 = 7 THEN 'rare' WHEN n %% 3 > 0 THEN 'category' || n %% 20 END, 'per_' || n %% 1000,
    CASE WHEN n %% 19 > 0 THEN 'per_' || n %% 101 END, 'grp_' || n %% 11, '["hardware"]', ARRAY['#hardware'], 'edm',
    'api', at, CASE WHEN n %% 7 = 0 THEN 'per_helper' ELSE 'per_' || n %% 1000 END,
    at + least(n::bigint * 7919 %% %(tickets)s, %(tickets)s - n) * interval '1 second', 'seed',
    CASE WHEN n %% 3 > 0 THEN at + interval '3 days' END, 'ast_' || n %% 5000, 'vul_' || nullif(n %% 5000, 0),
    {terms}
FROM generate_series(1, %(tickets)s) AS n,
    LATERAL (SELECT timestamptz '2026-01-01T00:00:00Z' + (n - %(tickets)s) * interval '1 minute' AS at) AS _,
    LATERAL (SELECT CASE WHEN n > %(tickets)s * 0.95 AND n %% 2 = 0 OR n %% 1000 = 17 THEN
        (ARRAY['open', 'open', 'in_progress', 'pending'])[1 + n / 2 %% 4] ELSE 'closed' END AS status) AS __
"""
