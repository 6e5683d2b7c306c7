//! Schemas of a namespace.

use crate::{
    config::{AppConfig, TenantsConfig, validate::Checks},
    model::{Compatibility, Rule},
    schema::{self, Schemas},
};

/// What a node must be able to bear, whoever has written it.
pub(super) fn of_rule(tenants: &TenantsConfig, rule: &Rule, path: &str, checks: &mut Checks<'_>) {
    let key = format!("{path}.schemas");
    let (count, most) = (rule.schemas.len(), tenants.max_schemas);
    checks.that(count <= most, &[&key], || {
        format!("must not be more than {most} (tenants.max_schemas)")
    });
    let mut before = 0;
    for (index, version) in rule.schemas.iter().enumerate() {
        let number = format!("{key}[{index}].version");
        checks.that(version.version > before, &[&number], || {
            format!("must be more than {before}: versions ascend from 1")
        });
        before = version.version;
        let schema = format!("{key}[{index}].schema");
        let (bytes, most) = (version.schema.to_string().len(), tenants.max_schema_bytes);
        checks.that(bytes <= most, &[&schema], || {
            format!("must not have more than {most} bytes (tenants.max_schema_bytes)")
        });
        if bytes > most {
            continue;
        }
        let unusable = schema::expand(&version.schema, tenants.max_schema_nodes).err();
        checks.that(unusable.is_none(), &[&schema], || {
            unusable.map(|why| why.to_string()).unwrap_or_default()
        });
    }
}

/// What whoever writes all versions at once must have made sure of.
pub(super) fn as_written(tenants: &TenantsConfig, app: &AppConfig, path: &str, checks: &mut Checks<'_>) {
    for (index, (_, rule)) in app.namespaces.iter().enumerate() {
        let key = format!("{path}.namespaces[{index}].schemas");
        let most = tenants.max_schema_nodes;
        // Told already.
        if rule
            .schemas
            .iter()
            .any(|version| schema::expand(&version.schema, most).is_err())
        {
            continue;
        }
        let unusable = Schemas::new(&rule.schemas, None).err();
        checks.that(unusable.is_none(), &[&key], || {
            unusable
                .map(|(version, why)| format!("version {version} cannot be used, {why}"))
                .unwrap_or_default()
        });
        if rule.schema_compatibility == Compatibility::None {
            continue;
        }
        for (at, pair) in rule.schemas.windows(2).enumerate() {
            let [before, next] = pair else { continue };
            let why = schema::check(before, next, rule.schema_compatibility).err();
            checks.that(why.is_none(), &[&format!("{key}[{}].schema", at + 1)], || {
                why.map(|why| why.to_string()).unwrap_or_default()
            });
        }
    }
}
