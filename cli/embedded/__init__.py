"""An embedded Mien: broker, web, worker and control as child processes of one supervisor, one per data folder."""
